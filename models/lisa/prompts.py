"""The words around a query, as the original writes them (dvlab-research/LISA at 3cb2d43).

There are three kinds of prompt:

- `teacher_forced`, as in the original's validation: the query stands in a fixed request, and the
  answer is given;
- `chat`, as in the original's ``chat.py``: the user's words as they were typed; it ends where the
  model has to answer;
- `described_prompt`, as the modified LISA's document has it: the query itself ends in ``[SEG]``.
"""

from dataclasses import dataclass

from ...harness.errors import unknown

IMAGE = "<image>"
IMAGE_START = "<im_start>"
IMAGE_END = "<im_end>"
SEG = "[SEG]"
END = "</s>"
# Values of the setting `prompt`: how a query becomes what the user says.
VALIDATION = "validation"
AS_TYPED = "as_typed"
# Tokens that a LLaVA lacks, in the order in which each model adds them. The modified LISA's
# document spells its own <SEG>; only the id reaches the model, so both are spelled [SEG] here.
ADDED = (SEG, IMAGE_START, IMAGE_END)
ADDED_BY_THE_DOCUMENT = (SEG,)


@dataclass(frozen=True)
class Template:
    """The fixed text of one turn of a conversation.

    Attributes:
        before: the request.
        between: the request and the answer.
        after: the answer.
    """

    before: str
    between: str
    after: str


# ``model/llava/conversation.py`` of the original.
TEMPLATES = {
    "llava_v1": Template(
        before="A chat between a curious human and an artificial intelligence assistant. The "
        "assistant gives helpful, detailed, and polite answers to the human's questions. USER: ",
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
    """Return the tokens that a model of this conditioning adds to a LLaVA's, in order of ids."""
    if conditioning == "described":
        return ADDED_BY_THE_DOCUMENT
    return ADDED


def teacher_forced(template: str, query: str, is_sentence: bool) -> str:
    """Return a prompt together with its answer ``[SEG].``, as in the original's validation.

    Args:
        template: a name in `TEMPLATES`.
        query: a whole question, or a noun phrase to put into one.
        is_sentence: which of the two `query` is.

    Raises:
        UsageError: there is no such template.
    """
    # In validation a space follows the line break after the image; in chat.py there is none.
    prompt = chat(template, f" {request(query, is_sentence)}")
    return answered(template, prompt)


def answered(template: str, prompt: str) -> str:
    """Return a prompt of `chat` together with the answer ``[SEG].``.

    Raises:
        UsageError: there is no such template.
    """
    return f"{prompt} {SEG}.{_template(template).after}"


def request(query: str, is_sentence: bool) -> str:
    """Return a query as the original's validation words it."""
    question = query.strip()
    if not is_sentence:
        question = f"What is {question} in this image?"
    return f"{question} Please output segmentation mask."


def chat(template: str, words: str) -> str:
    """Return the prompt of a conversation, up to where the model answers.

    Args:
        template: a name in `TEMPLATES`.
        words: what the user says.

    Raises:
        UsageError: there is no such template.
    """
    around = _template(template)
    return f"{around.before}{IMAGE_START}{IMAGE}{IMAGE_END}\n{words}{around.between}"


def described_prompt(template: str, query: str) -> str:
    """Return the modified LISA's prompt as its document describes it: the query ends in ``[SEG]``.

    The image stands there as in LLaVA-1.5, without ``<im_start>`` and ``<im_end>``: ``[SEG]`` is
    the only token added.

    Raises:
        UsageError: there is no such template.
    """
    around = _template(template)
    return f"{around.before}{IMAGE}\n{query.strip()} {SEG}{around.between}"


def _template(name: str) -> Template:
    if name not in TEMPLATES:
        raise unknown("template", name, TEMPLATES)
    return TEMPLATES[name]
