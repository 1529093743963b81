"""The page of a run, ``report.html``: one file that needs nothing else.

It is opened from disk and sent as it is. So style, script, data and images are inside it, and its
content security policy lets a browser request nothing. Text from data is escaped by the template,
or shown by the script as text.
"""

import base64
import hashlib
from collections import Counter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ...harness.contract import STAGES
from ...harness.records.run import Run
from ...harness.records.whole_file import whole_file
from .. import palette
from ..peaks import GROWTH
from ..run.schema import Summary
from .chart import tradeoff
from .content import UNATTRIBUTED, content
from .explorer import Json, explorer

PAGE = "report.html"
HERE = Path(__file__).parent
MOST_TAGS = 12  # that the page names as examples of a filter
UNATTRIBUTED_COLOUR = "#B4B4B4"


def write_html(run: Run, summary: Summary) -> Path:
    """Write ``report.html`` into a run's folder, whole or not at all, and return its path."""
    path = run.folder / PAGE
    text = html(run, summary)
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def html(run: Run, summary: Summary) -> str:
    """Return the page of a run."""
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Both are files of ours and hold no data, so they are inserted as they are.
    style = Markup((HERE / "report.css").read_text(encoding="utf-8") + _colours(summary))
    script = Markup((HERE / "report.js").read_text(encoding="utf-8"))
    data = explorer(run, summary)
    template = environment.get_template(PAGE)
    return template.render(
        content=content(summary),
        growth=GROWTH,
        tradeoff=tradeoff(summary),
        looks=_looks(summary),
        queries=bool(data["queries"]),
        tags=_frequent_tags(data),
        # The filter `tojson` writes "<", ">" and "&" as escapes of JSON, which end no element.
        data=data,
        style=style,
        script=script,
        style_hash=_hash(style),
        script_hash=_hash(script),
    )


def _hash(text: str) -> str:
    """Return how a content security policy names a script or a style that it allows."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _looks(summary: Summary) -> list[palette.Look]:
    return palette.looks([(case.name, case.settings) for case in summary.cases])


def _colours(summary: Summary) -> str:
    """Return the style of each case and of each stage: text without any data in it."""
    on_dark = {}
    for encoder, colour in palette.ENCODERS.items():
        on_dark[colour] = palette.ENCODERS_ON_DARK[encoder]
    lines, dark_lines = [], []
    for number, look in enumerate(_looks(summary)):
        lines.append(f".case-{number} {{ --case: {look.colour}; }}")
        dark_lines.append(f".case-{number} {{ --case: {on_dark.get(look.colour, look.colour)}; }}")
    for stage in (*STAGES, UNATTRIBUTED):
        colour = palette.STAGES.get(stage, UNATTRIBUTED_COLOUR)
        lines.append(f".stage-{stage} {{ --case: {colour}; fill: {colour}; }}")
    lines.append(".swatch { background: var(--case); }")
    for line in dark_lines:
        lines.append(f':root[data-theme="dark"] {line}')
    lines.append("@media (prefers-color-scheme: dark) {")
    for line in dark_lines:
        lines.append(f'  :root:not([data-theme="light"]) {line}')
    lines.append("}")
    return "\n" + "\n".join(lines) + "\n"


def _frequent_tags(data: Json) -> list[tuple[str, str]]:
    """Return the tags with their values that most queries have, as the filter takes them."""
    counts: Counter[tuple[str, str]] = Counter()
    for query in data["queries"]:
        for name, value in query["tags"].items():
            counts[name.replace(" ", "_"), value.replace(" ", "_")] += 1
    frequent = [tag for tag, _ in counts.most_common(MOST_TAGS)]
    return sorted(frequent)
