"""The words around a query, as the original writes them (dvlab-research/LISA at 3cb2d43). Pure Python.

A prompt is teacher-forced, as in the original's validation: the query sits in a fixed request and the answer is given.
Or it is a chat, which ends where the model has to answer. Or it is as the modified LISA is described: the query itself
asks for the mask, by ending in the token for it.
"""

from dataclasses import dataclass

from ...harness.errors import unknown

IMAGE = "<image>"
IMAGE_START = "<im_start>"
IMAGE_END = "<im_end>"
SEG = "[SEG]"
END = "</s>"
# Tokens that a LLaVA lacks, in the order in which each model adds them. The modified LISA's document spells its own
# <SEG>; only the id reaches the model, so both are spelled [SEG] here.
ADDED = (SEG, IMAGE_START, IMAGE_END)
ADDED_BY_THE_DOCUMENT = (SEG,)


@dataclass(frozen=True)
class Template:
    """One turn of a conversation: what stands before the request, between it and the answer, and after the answer."""

    before: str
    between: str
    after: str


TEMPLATES = {
    "llava_v1": Template(
        before="A chat between a curious human and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the human's questions. USER: ",
        between=" ASSISTANT:",
        after=END,
    ),
    "llava_llama_2": Template(
        before="[INST] <<SYS>>\nYou are a helpful language and vision assistant. "
        "You are able to understand the visual content that the user provides, "
        "and assist the user with a variety of tasks using natural language.\n<</SYS>>\n\n",
        between=" [/INST]",
        after=f" {END}",
    ),
}


def added_tokens(conditioning: str) -> tuple[str, ...]:
    """Return the tokens that a model of this conditioning adds to a LLaVA's, in the order of their ids."""
    return ADDED_BY_THE_DOCUMENT if conditioning == "described" else ADDED


def teacher_forced(template: str, query: str, is_sentence: bool) -> str:
    """The prompt and its answer ``[SEG].``, as the original's validation has them.

    Args:
        template: a name in `TEMPLATES`.
        query: a whole question, or a noun phrase to put into one.
        is_sentence: which of the two `query` is.
    """
    return f"{_open(template, f' {request(query, is_sentence)}')} {SEG}.{_template(template).after}"


def request(query: str, is_sentence: bool) -> str:
    """A query as the original's validation puts it, to be forced or to be answered in a chat."""
    question = query.strip() if is_sentence else f"What is {query.strip()} in this image?"
    return f"{question} Please output segmentation mask."


def chat(template: str, words: str) -> str:
    """The prompt of a conversation, up to where the model answers."""
    return _open(template, words)


def described(template: str, query: str) -> str:
    """Return the modified LISA's prompt as its document describes it: the query itself ends in ``[SEG]``.

    The image stands there as in LLaVA-1.5, without ``<im_start>`` and ``<im_end>``: ``[SEG]`` is the only token added.
    """
    around = _template(template)
    return f"{around.before}{IMAGE}\n{query.strip()} {SEG}{around.between}"


def _open(template: str, words: str) -> str:
    around = _template(template)
    return f"{around.before}{IMAGE_START}{IMAGE}{IMAGE_END}\n{words}{around.between}"


def _template(name: str) -> Template:
    if name not in TEMPLATES:
        raise unknown("template", name, TEMPLATES)
    return TEMPLATES[name]
