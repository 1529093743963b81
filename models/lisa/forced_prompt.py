"""A query with its answer given: up to where its mask's state is read, and what of the answer follows there."""

from .config import LisaConfig
from .prompts import described, teacher_forced
from .tokenizer import Tokens, before_seg


def forced_ids(
    case: LisaConfig, tokens: Tokens, query: str, is_sentence: bool
) -> tuple[list[int], list[int]]:
    """The ids up to the state that prompts the mask, and those of the answer that follow, ``[SEG]`` first.

    As the modified LISA is described, the state is that of ``<SEG>`` itself, and there is no answer.

    Args:
        case: says the template, and which state it is.
        tokens: of the weights.
        query: a whole question, or a noun phrase.
        is_sentence: which of the two `query` is.
    """
    if case.conditioning == "described":
        ids = tokens.encode(described(case.template, query))
        return [*before_seg(ids, tokens.seg_id), tokens.seg_id], []
    ids = tokens.encode(teacher_forced(case.template, query, is_sentence))
    prompt = before_seg(ids, tokens.seg_id)
    return prompt, ids[len(prompt) :]
