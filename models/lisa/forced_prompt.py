"""The token ids of a query whose answer is given, cut where its mask's state is read."""

from .config import LisaConfig
from .prompts import AS_TYPED, answered, chat, described_prompt, teacher_forced
from .tokenizer import Tokens, before_seg


def forced_ids(
    case: LisaConfig, tokens: Tokens, query: str, is_sentence: bool
) -> tuple[list[int], list[int]]:
    """Return the ids up to the state that prompts the mask, and the ids that follow it.

    In the original that is the state before ``[SEG]``, which predicts it; the rest of the answer
    follows, ``[SEG]`` first. In the modified LISA as described, it is the state of ``[SEG]``
    itself, at the end of the query, and there is no answer.

    Args:
        case: names the template and the conditioning, and says how a query becomes a prompt.
        tokens: the tokenizer of the weights.
        query: a whole question, or a noun phrase; or with ``prompt=as_typed`` any words.
        is_sentence: which of the two `query` is.
    """
    if case.conditioning == "described":
        ids = tokens.encode(described_prompt(case.template, query))
        return [*before_seg(ids, tokens.seg_id), tokens.seg_id], []
    if case.prompt == AS_TYPED:
        text = answered(case.template, chat(case.template, query))
    else:
        text = teacher_forced(case.template, query, is_sentence)
    ids = tokens.encode(text)
    prompt = before_seg(ids, tokens.seg_id)
    return prompt, ids[len(prompt) :]
