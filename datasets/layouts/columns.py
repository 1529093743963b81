"""Which column of a parquet table is what, by its name and type.

Data sets name and nest the same things differently. What is known here, with an example of each:

    image  struct<bytes, path> (Hugging Face `datasets`), binary, or the path of a file
    text   string (ReasonSeg's copies), list of strings (lmms-lab/RefCOCO: ``answer``), list of
           structs with ``sent`` (jxu124/refcoco: ``sentences``)
    mask   nested list of bool (ReasonSeg's copies), polygons (lmms-lab/RefCOCO: ``segmentation``),
           COCO's annotation as JSON text (jxu124/refcoco: ``raw_anns``), COCO's run lengths
           (moondream/refcoco-m: ``mask``), or an encoded picture
    list of structs with texts and masks: several queries about the image of the row
           (moondream/refcoco-m: ``samples``)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ...harness.errors import DataError, UsageError

# Names in the order in which they are preferred.
IMAGES = ("image", "img", "picture", "image_bytes", "image_path", "img_path", "file_name")
WORDINGS_OF_ONE = ("text", "texts", "query", "queries")  # in a list, paraphrases of one query
TEXTS = (
    *WORDINGS_OF_ONE,
    *("sentences", "sentence", "expressions", "expression", "referring_expressions"),
    *("referring_expression", "captions", "caption", "phrase"),
)
ANSWERS = ("answer", "answers")  # the texts where a list; otherwise what a model should say
QUESTIONS = ("question",)
MASKS = ("mask", "masks", "segmentation", "segmentations", "rle", "gt_mask", "raw_anns")
QUERY_IDS = ("question_id", "ref_id", "sample_id", "query_id", "id", "ann_id", "image_id")
# Of the target, and in ReasonSeg-X (sj9909/ReasonSegX_test) of the query.
TAGS = ("category", "reasoning_type")
HEIGHTS = ("img_height", "image_height", "height")
WIDTHS = ("img_width", "image_width", "width")
SAMPLES = ("samples", "objects", "instances", "annotations", "refs")
WORDINGS = ("sent", "raw", "text")  # fields of a struct that holds a text

EXPECTED = (
    "an image (struct with bytes, binary, or path: image, image_path), texts (string, or list: "
    "text, sentences, answer, captions) and a mask (nested bool or 0/1, PNG, polygons or COCO RLE: "
    "mask, segmentation, raw_anns), the last two in the row or in a list of structs (samples)"
)

MaskForm = Literal["pixels", "picture", "outlines"]
Fits = Callable[[Any], bool]


@dataclass(frozen=True)
class QueryColumns:
    """The columns of a query, which are the row's or fields of each struct in a list.

    Attributes:
        texts: its wordings.
        are_queries: whether several texts are a query each, as the sentences of a reference are in
            every evaluation of refCOCO; otherwise they are wordings of one query, as in ReasonSeg.
        mask: its target.
        mask_form: "pixels" is a nested list, "picture" an encoded one, "outlines" is polygons or
            run lengths, nested or as JSON.
        is_two_valued: whether the mask can hold nothing but true and false.
        is_one_polygon: whether it can hold nothing but a single polygon.
        id: None where there is none.
        is_sentence: None where there is none.
        tags: columns by whose values scores are sliced, of those that there are.
    """

    texts: str
    are_queries: bool
    mask: str
    mask_form: MaskForm
    is_two_valued: bool
    is_one_polygon: bool
    id: str | None
    is_sentence: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Columns:
    """The columns of a table that are read.

    Attributes:
        image: the picture, as bytes or as a path.
        query: those of a query.
        samples: a list of structs, which holds the queries about the image; None: the row is a
            query.
        id: of the row; None where there is none.
        height: of the image in pixels; None where there is none.
        width: likewise.
    """

    image: str
    query: QueryColumns
    samples: str | None
    id: str | None
    height: str | None
    width: str | None

    def top_level(self) -> list[str]:
        """Return the names of the table's own columns that are read."""
        names: list[str | None] = [self.image, self.id, self.height, self.width, self.samples]
        if self.samples is None:
            query = self.query
            names += [query.texts, query.mask, query.id, query.is_sentence, *query.tags]
        return sorted({name for name in names if name is not None})


def import_pyarrow() -> Any:
    """Return the package pyarrow with its readers of parquet files.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UsageError(
            "parquet files need the package pyarrow: install it with "
            "`pip install 'lisabench[data]'`"
        ) from None
    return pyarrow


def recognised(schema: Any, subject: str) -> Columns:
    """Return which columns of a table are read.

    Args:
        schema: of the table, from pyarrow.
        subject: the file, for the message.

    Raises:
        DataError: they fit no known layout; names those that there are, and those expected.
    """
    fields = {field.name: field.type for field in schema}
    image = _first(fields, IMAGES, _holds_bytes) or _first(fields, IMAGES, _is_string)
    query, samples = _query_columns(fields), None
    if query is None:
        samples = _first(fields, SAMPLES, _holds_queries)
        if samples is not None:
            query = _query_columns(_struct_fields(fields[samples].value_type))
    if image is None or query is None:
        shown = [f"{name} ({column_type})" for name, column_type in fields.items()]
        # A message has a longest length, and what is expected must not be cut.
        raise DataError(
            f"{subject}: its columns fit no known layout; expected {EXPECTED}; it has "
            f"{', '.join(shown) or 'none'}"
        )
    return Columns(
        image=image,
        query=query,
        samples=samples,
        id=_first(fields, QUERY_IDS, _is_id),
        height=_first(fields, HEIGHTS, _is_integer),
        width=_first(fields, WIDTHS, _is_integer),
    )


def _query_columns(fields: dict[str, Any]) -> QueryColumns | None:
    """Return the columns of a query among some fields; None without texts or a mask."""
    texts = (
        _first(fields, TEXTS, _holds_texts)
        or _first(fields, ANSWERS, _lists_texts)
        or _first(fields, QUESTIONS, _is_string)
    )
    mask = _first(fields, MASKS, lambda column_type: mask_form(column_type) is not None)
    if texts is None or mask is None:
        return None
    mask_type = fields[mask]
    form = mask_form(mask_type)
    assert form is not None
    return QueryColumns(
        texts=texts,
        are_queries=_lists_texts(fields[texts]) and texts not in WORDINGS_OF_ONE,
        mask=mask,
        mask_form=form,
        is_two_valued=form == "pixels" and _is_bool(mask_type.value_type.value_type),
        is_one_polygon=_is_list(mask_type) and _is_float(mask_type.value_type),
        id=_first(fields, QUERY_IDS, _is_id),
        is_sentence=_first(fields, ("is_sentence",), _is_bool),
        tags=tuple(name for name in TAGS if _first(fields, (name,), _is_id)),
    )


def _first(fields: dict[str, Any], names: Sequence[str], fits: Fits) -> str | None:
    """Return the first of some names that a field of a fitting type has."""
    for name in names:
        if name in fields and fits(fields[name]):
            return name
    return None


def mask_form(column_type: Any) -> MaskForm | None:
    """Return in which form a column of this type can hold masks; None: in none."""
    if _holds_bytes(column_type):
        return "picture"
    if _is_string(column_type) or _is_run_lengths(column_type):
        return "outlines"
    if not _is_list(column_type):
        return None
    inner = column_type.value_type
    if _is_list(inner) and (_is_bool(inner.value_type) or _is_integer(inner.value_type)):
        return "pixels"
    while _is_list(inner):
        inner = inner.value_type
    if _is_float(inner) or _is_integer(inner) or _is_run_lengths(inner):
        return "outlines"
    return None


def _struct_fields(column_type: Any) -> dict[str, Any]:
    if not import_pyarrow().types.is_struct(column_type):
        return {}
    return {field.name: field.type for field in column_type}


def _holds_bytes(column_type: Any) -> bool:
    fields = _struct_fields(column_type)
    return _is_binary(fields["bytes"]) if "bytes" in fields else _is_binary(column_type)


def _is_run_lengths(column_type: Any) -> bool:
    return {"counts", "size"} <= set(_struct_fields(column_type))


def _holds_texts(column_type: Any) -> bool:
    return _is_string(column_type) or _lists_texts(column_type)


def _lists_texts(column_type: Any) -> bool:
    if not _is_list(column_type):
        return False
    inner = column_type.value_type
    return _is_string(inner) or _first(_struct_fields(inner), WORDINGS, _is_string) is not None


def _holds_queries(column_type: Any) -> bool:
    if not _is_list(column_type):
        return False
    return _query_columns(_struct_fields(column_type.value_type)) is not None


def _is_id(column_type: Any) -> bool:
    return _is_string(column_type) or _is_integer(column_type)


def _is_list(column_type: Any) -> bool:
    types = import_pyarrow().types
    return (
        types.is_list(column_type)
        or types.is_large_list(column_type)
        or types.is_fixed_size_list(column_type)
    )


def _is_string(column_type: Any) -> bool:
    types = import_pyarrow().types
    return types.is_string(column_type) or types.is_large_string(column_type)


def _is_binary(column_type: Any) -> bool:
    types = import_pyarrow().types
    return types.is_binary(column_type) or types.is_large_binary(column_type)


def _is_bool(column_type: Any) -> bool:
    return import_pyarrow().types.is_boolean(column_type)


def _is_integer(column_type: Any) -> bool:
    return import_pyarrow().types.is_integer(column_type)


def _is_float(column_type: Any) -> bool:
    return import_pyarrow().types.is_floating(column_type)
