// The table and the viewer of every query on the page of a run.
//
// The page is one file: nothing is requested, and there is no library. Text from data is only ever
// set with `textContent`, so that nothing in it becomes markup.
//
// The data have: cases (id, name, and the number of the reference), hasQuality, images (addresses
// that hold the image), and queries. A query has id, text, tags, size [h, w], area in per cent, and
// where they were kept the number of its image, target and ignored pixels. Its answers are in the
// order of the cases; one that is missing is null. Masks are run lengths as COCO writes them.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

const MISSED_BELOW = 0.5; // an IoU below it is a miss
const DISAGREE_ABOVE = 0.3; // difference of two IoUs of one query
const MOST_CASES_WITH_DIFFERENCES = 4; // of more cases the table would be too wide
const DIM = [128, 128, 128, 0.45]; // red, green, blue and how much of it
const HIT = [0, 158, 115, 0.55];
const TOO_MUCH = [224, 33, 138, 0.75];
const MISSED = [240, 228, 66, 0.8];
const IGNORED = [128, 128, 128, 0.8];
const OUTLINE = [255, 255, 255, 1];
const TARGET = [0, 158, 115, 0.6];

// What is shown. `query` is a query of the data, `picture` is "image", "target" or the number of a
// case, and `rows` are the queries that pass the filter, in the order of the table.
const state = {
  rows: data.queries.slice(),
  query: data.queries[0],
  picture: 0,
  errors: false,
  maskHidden: false,
  column: null, // that the table is sorted by; null: the order of the data
  ascending: true,
  chip: "all",
};

// ------------------------------------------------------------------------------ what is computed

/** Return the IoUs of a query, without those of cases that have none. */
function ious(query) {
  return query.answers.filter((answer) => answer?.iou !== undefined).map((answer) => answer.iou);
}

/** Return by how much two cases differ at most; null where fewer than two have a score. */
function disagreement(query) {
  const all = ious(query);
  return all.length < 2 ? null : Math.max(...all) - Math.min(...all);
}

/** Return a case's IoU less that of its reference; null where either is missing. */
function difference(query, number) {
  const own = query.answers[number]?.iou;
  const reference = query.answers[data.cases[number].reference]?.iou;
  return own === undefined || reference === undefined ? null : own - reference;
}

function signed(value) {
  const digits = Math.abs(value).toFixed(2);
  if (Number(digits) === 0) return digits;
  return (value > 0 ? "+" : "\u2212") + digits;
}

/** Return the columns: a heading, the value to sort by (null: unknown), and how it is written. */
function columns() {
  const all = [{ heading: "query", isText: true, value: (query) => query.text }];
  all.push({ heading: "area %", value: (query) => query.area, write: (v) => v.toFixed(1) });
  data.cases.forEach((one, number) => {
    if (data.hasQuality) {
      const value = (query) => query.answers[number]?.iou ?? null;
      all.push({ heading: one.name, value, write: (v) => v.toFixed(2), isScore: true });
    } else {
      const value = (query) => query.answers[number]?.ms ?? null;
      all.push({ heading: `${one.name} ms`, value, write: (v) => v.toFixed(1) });
    }
  });
  if (!data.hasQuality) return all;
  if (data.cases.length <= MOST_CASES_WITH_DIFFERENCES) {
    data.cases.forEach((one, number) => {
      if (one.reference === null) return;
      const heading = `${one.name} \u2212 ${data.cases[one.reference].name}`;
      all.push({ heading, value: (query) => difference(query, number), write: signed });
    });
  } else {
    all.push({ heading: "disagreement", value: disagreement, write: (v) => v.toFixed(2) });
  }
  return all;
}

const COLUMNS = columns();

// Filters that are chosen with a button.
const CHIPS = {
  all: () => true,
  disagree: (query) => disagreement(query) > DISAGREE_ABOVE,
  "all miss": (query) => ious(query).length > 0 && Math.max(...ious(query)) < MISSED_BELOW,
  "no target": (query) => query.area === 0,
  failed: (query) => query.answers.some((answer) => answer?.status && answer.status !== "no_seg"),
};

/** Return a text as the filter compares it: a tag or a value of one is a single word. */
function asWord(text) {
  return text.toLowerCase().replaceAll(" ", "_");
}

const tagNames = new Set(data.queries.flatMap((query) => Object.keys(query.tags).map(asWord)));

/** Return whether a query has every word of the filter; `tag:value` looks at a tag instead. */
function passes(query, words) {
  if (!CHIPS[state.chip](query)) return false;
  const text = query.text.toLowerCase();
  const tags = Object.entries(query.tags).map(([name, value]) => `${asWord(name)}:${asWord(value)}`);
  return words.every((word) => {
    const isTag = tagNames.has(word.split(":")[0]) && word.includes(":");
    return isTag ? tags.some((tag) => tag.startsWith(word)) : text.includes(word);
  });
}

/** Return -1, 0 or 1 for two queries; unknown values come last in either direction. */
function compare(a, b) {
  const [x, y] = [state.column.value(a), state.column.value(b)];
  if (x === null || y === null) return (x === null) - (y === null);
  const order = state.column.isText ? x.localeCompare(y) : x - y;
  return state.ascending ? order : -order;
}

// ----------------------------------------------------------------------------------- the table

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Return a button that is pressed or not, and calls a function when it is clicked. */
function toggle(text, isPressed, onClick) {
  const button = element("button", "", text);
  button.type = "button";
  button.setAttribute("aria-pressed", String(isPressed));
  button.addEventListener("click", onClick);
  return button;
}

// A browser takes seconds to lay out a thousand rows. So the table has as many as are seen, and more
// are added when it is scrolled. Each is made once and then only moved.
const ROWS_AT_ONCE = 100;
const tableRows = new Map();

/** Add rows to the end of the table, until it has so many or all of them. */
function fillTable(count) {
  const body = byId("queries").tBodies[0];
  const added = state.rows.slice(body.rows.length, count);
  for (const query of added) {
    if (!tableRows.has(query)) tableRows.set(query, makeRow(query));
  }
  body.append(...added.map((query) => tableRows.get(query)));
}

function onScroll() {
  const box = byId("queries").parentElement;
  const isNearEnd = box.scrollTop + 2 * box.clientHeight > box.scrollHeight;
  if (isNearEnd) fillTable(byId("queries").tBodies[0].rows.length + ROWS_AT_ONCE);
}

function makeRow(query) {
  const row = element("tr");
  for (const column of COLUMNS) {
    const cell = element("td", column.isText ? "text" : "");
    const value = column.value(query);
    if (column.isText) {
      cell.textContent = value;
    } else if (value !== null && column.isScore) {
      const score = element("span", "score", column.write(value));
      score.style.setProperty("--share", value);
      cell.append(score);
    } else {
      cell.textContent = value === null ? "\u2013" : column.write(value);
    }
    row.append(cell);
  }
  row.addEventListener("click", () => select(query));
  return row;
}

function showHead() {
  const row = element("tr");
  for (const column of COLUMNS) {
    const cell = element("th", column.isText ? "text" : "");
    const isSorted = state.column === column;
    const arrow = isSorted ? (state.ascending ? " \u25b2" : " \u25bc") : "";
    const button = element("button", "", column.heading + arrow);
    button.type = "button";
    button.addEventListener("click", () => sortBy(column));
    if (isSorted) cell.setAttribute("aria-sort", state.ascending ? "ascending" : "descending");
    cell.append(button);
    row.append(cell);
  }
  byId("queries").tHead.replaceChildren(row);
}

function sortBy(column) {
  state.ascending = state.column === column ? !state.ascending : true;
  state.column = column;
  showHead();
  showRows();
}

/** Show the queries that pass the filter, in order, and the mean IoU over them. */
function showRows() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  state.rows = data.queries.filter((query) => passes(query, words));
  if (state.column) state.rows.sort(compare);
  byId("queries").tBodies[0].replaceChildren();
  fillTable(ROWS_AT_ONCE);
  byId("count").textContent = count();
  if (state.rows.length && !state.rows.includes(state.query)) select(state.rows[0]);
  else markRow();
}

function count() {
  const means = [];
  data.cases.forEach((one, number) => {
    const scores = state.rows.map((query) => query.answers[number]?.iou);
    const known = scores.filter((score) => score !== undefined);
    const mean = known.reduce((sum, score) => sum + score, 0) / known.length;
    if (known.length) means.push(`${one.name} ${mean.toFixed(3)}`);
  });
  const queries = `${state.rows.length} of ${data.queries.length} queries`;
  return means.length ? `${queries}. Mean IoU over them: ${means.join(", ")}` : queries;
}

function showChips() {
  const chips = [];
  for (const [name, isIn] of Object.entries(CHIPS)) {
    if (!data.queries.some(isIn)) continue;
    const choose = () => {
      state.chip = name;
      showChips();
      showRows();
    };
    chips.push(toggle(name, state.chip === name, choose));
  }
  byId("chips").replaceChildren(...chips);
}

/** Mark the row of the shown query and bring it into the visible part of the table. */
function markRow() {
  const place = state.rows.indexOf(state.query);
  if (place >= 0) fillTable(place + 10); // so that some rows are seen below it
  for (const [query, row] of tableRows) {
    row.setAttribute("aria-selected", String(query === state.query));
  }
  const row = tableRows.get(state.query);
  if (!row?.isConnected) return;
  const box = byId("queries").parentElement;
  const headHeight = byId("queries").tHead.offsetHeight;
  const above = row.offsetTop - headHeight;
  const below = row.offsetTop + row.offsetHeight - box.clientHeight;
  if (above < box.scrollTop) box.scrollTop = above;
  else if (below > box.scrollTop) box.scrollTop = below;
}

// ---------------------------------------------------------------------------------- the viewer

/** Return run lengths of COCO's text: five bits a character, differences from the fourth on. */
function runLengths(text) {
  const runs = [];
  let place = 0;
  while (place < text.length) {
    let number = 0;
    let shift = 0;
    let group;
    do {
      group = text.charCodeAt(place) - 48;
      number |= (group & 31) << shift;
      shift += 5;
      place += 1;
    } while (group & 32);
    if (group & 16) number |= -1 << shift; // the highest bit is the sign
    if (runs.length > 2) number += runs[runs.length - 2];
    runs.push(number);
  }
  return runs;
}

/** Return a mask as an array of 0 and 1, row by row; all 0 where there is none. */
function pixels(text, height, width) {
  const mask = new Uint8Array(height * width);
  if (!text) return mask;
  let start = 0;
  runLengths(text).forEach((length, index) => {
    // COCO goes column by column, and begins with a run of zeros.
    for (let place = start; index % 2 && place < start + length; place += 1) {
      mask[(place % height) * width + Math.floor(place / height)] = 1;
    }
    start += length;
  });
  return mask;
}

/** Return a colour of the page, such as "#d55e00", as red, green, blue and a strength. */
function caseColour(number) {
  const probe = document.querySelector(`.case-${number}`);
  const hex = getComputedStyle(probe).getPropertyValue("--case").trim();
  return [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16)).concat(0.6);
}

const images = new Map(); // by number, as promises of decoded images

function imageOf(query) {
  if (query.image === undefined) return Promise.resolve(null);
  if (!images.has(query.image)) {
    const image = new Image();
    image.src = data.images[query.image];
    const decoded = image.decode().then(() => image, () => null);
    images.set(query.image, decoded);
  }
  return images.get(query.image);
}

/** Return the colour of each kind of pixel: in the mask or not, in the target or not. */
function coloursOf(isCase) {
  if (isCase && state.errors) return { both: HIT, mask: TOO_MUCH, target: MISSED, none: DIM };
  const colour = isCase ? caseColour(state.picture) : TARGET;
  return { both: colour, mask: colour, target: DIM, none: DIM };
}

/** Draw a query: its image, and over it the target or a mask, with the outline of the target. */
async function draw() {
  const query = state.query;
  const image = await imageOf(query);
  if (query !== state.query) return; // another query was chosen while the image was decoded
  const [height, width] = query.size;
  const canvas = byId("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#b4b4b4";
  context.fillRect(0, 0, width, height);
  if (image) context.drawImage(image, 0, 0, width, height);
  if (state.picture !== "image" && !state.maskHidden) {
    const drawn = context.getImageData(0, 0, width, height);
    paint(drawn, query);
    context.putImageData(drawn, 0, 0);
  }
  canvas.dataset.drawn = `${query.id} ${state.picture} ${state.errors} ${state.maskHidden}`;
}

function paint(drawn, query) {
  const [height, width] = query.size;
  const isCase = state.picture !== "target";
  const target = pixels(query.target, height, width);
  const ignored = pixels(query.ignored, height, width);
  const mask = isCase ? pixels(query.answers[state.picture]?.mask, height, width) : target;
  const colours = coloursOf(isCase);
  const put = (place, [red, green, blue, strength]) => {
    [red, green, blue].forEach((value, channel) => {
      const at = 4 * place + channel;
      drawn.data[at] = drawn.data[at] * (1 - strength) + value * strength;
    });
  };
  for (let place = 0; place < mask.length; place += 1) {
    const [x, y] = [place % width, Math.floor(place / width)];
    if (ignored[place]) {
      if ((x + y) % 8 < 4) put(place, IGNORED);
    } else if (mask[place]) {
      put(place, target[place] ? colours.both : colours.mask);
    } else {
      put(place, target[place] ? colours.target : colours.none);
    }
    const atBorder = x === 0 || y === 0 || x === width - 1 || y === height - 1;
    const isInside = target[place - 1] && target[place + 1] && target[place - width] && target[place + width];
    if (target[place] && !atBorder && !isInside) put(place, OUTLINE);
  }
}

function swatch([red, green, blue]) {
  const made = element("i", "swatch");
  made.style.background = `rgb(${red} ${green} ${blue})`;
  return made;
}

/** Say what the colours of the errors mean, or why there is nothing to see. */
function showLegend() {
  const query = state.query;
  const parts = [];
  if (query.image === undefined) parts.push("The image was not kept. ");
  if (state.picture === "target" && !query.target) parts.push("The target was not kept.");
  const isCase = typeof state.picture === "number";
  if (isCase && query.answers[state.picture]?.mask === undefined) {
    parts.push("The mask was not kept.");
  } else if (isCase && state.errors) {
    parts.push(swatch(HIT), "right ", swatch(TOO_MUCH), "too much ", swatch(MISSED), "missed ");
  }
  if (state.picture !== "image" && query.ignored) {
    parts.push(swatch(IGNORED), "striped: not counted");
  }
  byId("legend").replaceChildren(...parts);
}

function showTabs() {
  const tabs = [];
  for (const picture of pictures()) {
    let label = picture === "target" ? "0 target" : "i image";
    if (typeof picture === "number") {
      const key = picture < 9 ? `${picture + 1} ` : "";
      const score = state.query.answers[picture]?.iou;
      label = key + data.cases[picture].name + (score === undefined ? "" : ` ${score.toFixed(2)}`);
    }
    const tab = toggle(label, state.picture === picture, () => showPicture(picture));
    if (typeof picture === "number") tab.prepend(element("i", `swatch case-${picture}`));
    tabs.push(tab);
  }
  tabs.push(toggle("e errors", state.errors, toggleErrors));
  byId("tabs").replaceChildren(...tabs);
}

/** Say what is known of the query and of the shown answer. */
function info() {
  const query = state.query;
  const parts = Object.entries(query.tags).map(([name, value]) => `${name}: ${value}`);
  const answer = query.answers[state.picture];
  if (typeof state.picture === "number") {
    const name = data.cases[state.picture].name;
    if (!answer) parts.push(`${name}: not evaluated`);
    if (answer?.status) parts.push(`${name}: ${answer.status === "no_seg" ? "no [SEG]" : answer.status}`);
    if (answer?.reason) parts.push(answer.reason);
    if (answer?.ms !== undefined) parts.push(`${name}: ${answer.ms.toFixed(1)} ms`);
    if (answer?.text) parts.push(`answer: ${answer.text}`);
  }
  return parts.join(" \u00b7 ");
}

function pictures() {
  return ["image", "target", ...data.cases.keys()];
}

function show() {
  byId("query").textContent = state.query.text;
  byId("info").textContent = info();
  byId("canvas").setAttribute("aria-label", `${state.query.text}: ${nameOf(state.picture)}`);
  byId("copy").textContent = "copy the link";
  showTabs();
  showLegend();
  markRow();
  writeAddress();
  draw();
}

function select(query) {
  state.query = query;
  show();
}

/** Choose the query that is so many rows further down the table. */
function step(rows) {
  const place = state.rows.indexOf(state.query) + rows;
  if (state.rows[place]) select(state.rows[place]);
}

function showPicture(picture) {
  state.picture = picture;
  state.maskHidden = false;
  show();
}

/** Show the picture that is so many tabs further to the right, around the end. */
function flip(tabs) {
  const all = pictures();
  showPicture(all[(all.indexOf(state.picture) + tabs + all.length) % all.length]);
}

function toggleErrors() {
  state.errors = !state.errors;
  if (state.errors && typeof state.picture !== "number") state.picture = 0;
  state.maskHidden = false;
  show();
}

// --------------------------------------------------------------------------- the address of a view

function nameOf(picture) {
  return typeof picture === "number" ? data.cases[picture].id : picture;
}

/** Write what is shown into the address, by names: they stay valid when the report is made anew. */
function writeAddress() {
  const address = new URLSearchParams({ query: state.query.id });
  // A case may be called "target" or "image", too.
  if (typeof state.picture === "number") address.set("case", nameOf(state.picture));
  else address.set("show", state.picture);
  if (state.errors) address.set("errors", "1");
  const hash = `#${address}`;
  byId("permalink").href = hash;
  if (location.hash !== hash) history.replaceState(null, "", hash);
}

/** Show what the address says, and leave everything else as it is; return whether it says any. */
function readAddress() {
  const address = new URLSearchParams(location.hash.slice(1));
  const query = data.queries.find((one) => one.id === address.get("query"));
  if (!query) return false;
  const number = data.cases.findIndex((one) => one.id === address.get("case"));
  if (number >= 0) state.picture = number;
  else if (["image", "target"].includes(address.get("show"))) state.picture = address.get("show");
  state.errors = address.get("errors") === "1" && typeof state.picture === "number";
  state.maskHidden = false;
  state.query = query;
  if (!state.rows.includes(query)) {
    // A filter that hides the query is taken away.
    byId("filter").value = "";
    state.chip = "all";
    showChips();
    showRows();
  }
  return true;
}

async function copyAddress() {
  try {
    await navigator.clipboard.writeText(location.href);
    byId("copy").textContent = "copied";
  } catch {
    byId("copy").textContent = "copy it from the address bar";
  }
}

// ------------------------------------------------------------------------------ keys and buttons

const KEYS = {
  j: () => step(1),
  k: () => step(-1),
  ArrowDown: () => step(1),
  ArrowUp: () => step(-1),
  ArrowRight: () => flip(1),
  ArrowLeft: () => flip(-1),
  i: () => showPicture("image"),
  0: () => showPicture("target"),
  e: toggleErrors,
  " ": () => {
    state.maskHidden = !state.maskHidden;
    draw();
  },
  "/": () => byId("filter").focus(),
};

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.tagName === "INPUT") {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  // The space bar presses a button that was reached with the Tab key.
  const isControl = ["BUTTON", "SUMMARY", "A"].includes(event.target.tagName);
  if (isControl && (event.key === " " || event.key === "Enter")) return;
  const number = Number.parseInt(event.key, 10) - 1;
  if (KEYS[event.key]) KEYS[event.key]();
  else if (event.key.length === 1 && data.cases[number]) showPicture(number);
  else return;
  event.preventDefault();
}

/** Let a button that was clicked with the mouse not keep the keys: see `onKey`. */
function onClick(event) {
  const button = event.target.closest("button");
  if (button && event.detail > 0) button.blur();
}

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
  const theme = document.documentElement.dataset.theme;
  return theme ? theme === "dark" : prefersDark.matches;
}

function showTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
}

function changeTheme() {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  showTheme();
  if (data.queries.length) draw(); // the colours of cases differ
}

showTheme();
byId("theme").addEventListener("click", changeTheme);
prefersDark.addEventListener("change", showTheme);
document.addEventListener("click", onClick);

if (data.queries.length) {
  showChips();
  showHead();
  byId("filter").addEventListener("input", showRows);
  byId("queries").parentElement.addEventListener("scroll", onScroll);
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("copy").addEventListener("click", copyAddress);
  document.addEventListener("keydown", onKey);
  window.addEventListener("hashchange", () => readAddress() && show());
  showRows();
  readAddress();
  show();
}
