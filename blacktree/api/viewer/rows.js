// How one event looks as a row of the log.

import { nodes } from "./ansi.js";
import { clock, count, duration, element, plain } from "./format.js";
import { keyOf } from "./folds.js";

const KINDS = { state: "moved" };
const LONGEST = 4000; // characters of a line that are shown at first

// `look`: { stamps, found, startedAt, current, selected, whole, folds, href, lanes, tags }
export function row(seq, event, look) {
  const number = element("a", { class: "number", href: look.href(seq), "aria-label": `Line ${seq}`, dataset: { seq }, tabindex: "-1" }, String(seq));
  const made = element("div", { class: `row ${event ? KINDS[event.type] ?? event.type : "missing"}`, dataset: { seq } }, number);
  if (look.selected && seq >= look.selected[0] && seq <= look.selected[1]) made.classList.add("selected");
  if (seq === look.current) made.classList.add("current");
  if (!event) {
    made.append("…");
    return made;
  }
  if (look.stamps !== "off") made.append(element("span", { class: "stamp" }, stamp(event.time, look)));
  if (look.tags) made.append(element("span", { class: "tag" }, tag(event)));
  made.append(content(made, event, look));
  return made;
}

// Rows with equal signatures look the same.
export function signature(seq, event, look) {
  const chosen = look.selected && seq >= look.selected[0] && seq <= look.selected[1];
  const fold = event?.type === "step_started" ? foldOf(event, look) : "";
  return `${event ? 1 : 0}${look.lanes?.get(event?.step) ?? ""}${look.stamps}${chosen}${seq === look.current}${look.whole.has(seq)}${fold}${look.startedAt}\n${look.found}`;
}

function foldOf(event, look) {
  const key = keyOf(event);
  return look.folds?.folded.has(key) ? "folded" : "open";
}

// What goes on changing in a row that stays: a button that were made anew for it could not be clicked.
export function refresh(node, event, look) {
  const hidden = event?.type === "step_started" && node.querySelector(".hidden-lines");
  if (!hidden) return;
  const told = count(look.folds.lines(keyOf(event)), "line");
  if (hidden.textContent !== told) hidden.textContent = told;
}

// Which replica of which version it is from.
function tag(event) {
  const [version, index] = (event.step ?? "").split("/");
  if (index !== undefined) return `v${plain(version)} #${plain(index)}`;
  return event.attempt ? `v${event.attempt}` : "";
}

function stamp(time, look) {
  return look.stamps === "absolute" ? clock(time) : `+${((Date.parse(time) - look.startedAt) / 1000).toFixed(1)} s`;
}

function content(made, event, look) {
  const text = (kind, ...parts) => element("span", { class: `text ${kind}` }, ...parts);
  switch (event.type) {
    case "log":
      if (event.stream === "stderr") made.classList.add("stderr");
      if (look.lanes?.has(event.step)) made.classList.add(`lane${look.lanes.get(event.step)}`);
      return line(event, look);
    case "step_started": {
      if (!look.folds) return text("", `▸ ${plain(event.name)}`);
      const key = keyOf(event);
      const folded = look.folds.folded.has(key);
      return text("", element("button", { type: "button", class: "fold", "aria-expanded": String(!folded), dataset: { fold: key } },
        element("span", { class: "arrow", "aria-hidden": "true" }), plain(event.name)),
      folded ? element("span", { class: "hidden-lines" }, count(look.folds.lines(key), "line")) : null);
    }
    case "step_finished":
      return text(event.ok ? "good" : "bad", `${event.ok ? "✓" : "✗"} ${plain(event.name)} `, element("span", { class: "took" }, event.cached ? "cached" : duration(event.seconds)));
    case "state":
      return text(`state-${event.to}`, `● ${plain(event.to).replaceAll("_", " ")}${event.reason ? `: ${plain(event.reason)}` : ""}${event.attempt && look.folds ? ` (attempt ${event.attempt})` : ""}`);
    case "progress":
      return text("", `${plain(event.step)}: ${event.current.toLocaleString("en")}${event.total ? ` of ${event.total.toLocaleString("en")}` : ""} ${plain(event.unit)}`);
    case "notice":
      return text("", `⚠ ${plain(event.text)}`);
    default:
      return text("", plain(event.type));
  }
}

function line(event, look) {
  const long = event.line.length > LONGEST && !look.whole.has(event.seq);
  const text = element("span", { class: "text" }, nodes(long ? event.line.slice(0, LONGEST) : event.line, look.found));
  if (long) {
    const rest = count(event.line.length - LONGEST, "more character");
    text.append(element("button", { type: "button", class: "more", dataset: { whole: event.seq } }, `… ${rest}`));
  }
  if (event.partial) text.append(element("span", { class: "aside", title: "This line was longer than 64 KiB and goes on in the next row." }, " ↩"));
  return text;
}
