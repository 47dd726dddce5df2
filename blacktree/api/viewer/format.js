// Small helpers: elements without markup, times that go on, sizes, and what is told to the reader.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name === "dataset") Object.assign(made.dataset, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...kept(children));
  return made;
}

const kept = (children) => children.flat(9).filter((child) => child !== null && child !== undefined && child !== false);

// Replaces what is in a node; what is null is left out. The same children in the same order are left alone.
export function fill(node, ...children) {
  const wanted = kept(children);
  const have = node.childNodes;
  if (wanted.length === have.length && wanted.every((child, index) => child === have[index])) return;
  node.replaceChildren(...wanted);
}

// Characters that would steer the text around them (bidirectional controls) or hide in it are shown by number.
const STEERING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function plain(text) {
  return String(text ?? "").replace(STEERING, (char) =>
    `\u27e8${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`,
  );
}

// JSON for people: its own line breaks stay, everything that steers does not.
export const pretty = (value) => JSON.stringify(value, null, 2).split("\n").map(plain).join("\n");

export function duration(seconds) {
  if (seconds === null || seconds === undefined || Number.isNaN(seconds)) return "";
  if (seconds < 0) seconds = 0;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${String(whole % 60).padStart(2, "0")} s`;
  return `${Math.floor(whole / 3600)} h ${String(Math.floor((whole % 3600) / 60)).padStart(2, "0")} m`;
}

export const seconds = (from, to) => (Date.parse(to) - Date.parse(from)) / 1000;
export const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

export function ago(time) {
  const passed = (Date.now() - Date.parse(time)) / 1000;
  if (passed < 5) return "just now";
  if (passed < 60) return `${Math.round(passed / 5) * 5} s ago`;
  if (passed < 3600) return `${Math.floor(passed / 60)} m ago`;
  return passed < 86400 ? `${duration(passed)} ago` : `${Math.floor(passed / 86400)} d ago`;
}

// How long ago something was, going on by itself while it is in the page.
export function since(time) {
  return time ? element("time", { datetime: time, title: time, dataset: { live: "ago" } }, ago(time)) : "";
}

// From one moment to another, or to now as long as there is no other.
export function span(from, to) {
  if (!from) return "";
  if (to) return duration(seconds(from, to));
  return element("span", { dataset: { live: "span", from } }, duration(seconds(from, new Date().toISOString())));
}

export function tick(root = document) {
  for (const node of root.querySelectorAll("[data-live]")) {
    const text = node.dataset.live === "ago" ? ago(node.dateTime) : duration((Date.now() - Date.parse(node.dataset.from)) / 1000);
    if (node.textContent !== text) node.textContent = text;
  }
}

export function bytes(number) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (number >= 1024 && unit < 4) {
    number /= 1024;
    unit += 1;
  }
  return `${number >= 10 || unit === 0 ? Math.round(number) : number.toFixed(1)} ${units[unit]}`;
}

const two = (value, width = 2) => String(value).padStart(width, "0");

export function clock(time, exact = true) {
  const date = new Date(time);
  const short = `${two(date.getHours())}:${two(date.getMinutes())}`;
  return exact ? `${short}:${two(date.getSeconds())}.${two(date.getMilliseconds(), 3)}` : short;
}

export function repositoryName(address) {
  const tail = String(address ?? "").replace(/\/+$/, "").replace(/\.git$/, "");
  return tail.split(/[/:]/).slice(-2).join("/") || tail;
}

export const ENDED = new Set(["succeeded", "failed", "canceled", "timed_out", "lost"]);

export const imageName = (name) => (name?.startsWith("sha256:") ? name.slice(0, 19) : name ?? "");

// Told by colour, by shape and by word.
export function state(name, kind = "") {
  return element("span", { class: `state ${kind || name}` }, element("span", { class: "dot", "aria-hidden": "true" }), name.replaceAll("_", " "));
}

export function field(name, ...value) {
  return element("div", {}, element("dt", {}, name), element("dd", {}, ...value));
}

export function table(columns, rows, attributes = {}) {
  return element("table", attributes,
    element("thead", {}, element("tr", {}, columns.map((name) =>
      element("th", { scope: "col" }, name.startsWith("~") ? element("span", { class: "unseen" }, name.slice(1)) : name)))),
    element("tbody", {}, rows));
}

// Something to press that asks the farm for something; it is out of use until the answer is there.
export function action(name, press, attributes = {}) {
  return element("button", { type: "button", ...attributes, onclick: async (event) => {
    const button = event.currentTarget;
    button.disabled = true;
    try {
      await press();
    } catch (error) {
      tell(error);
    } finally {
      button.disabled = false;
    }
  } }, name);
}

export function toast(text, kind = "") {
  const made = element("div", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(made);
  setTimeout(() => made.remove(), kind === "error" ? 12000 : 6000);
}

// For who listens instead of looking.
export function announce(text) {
  const node = document.getElementById("announcer");
  if (node.textContent !== text) node.textContent = text;
}

export const tell = (error) => toast(plain(error.data?.advice ? `${error.message}: ${error.data.advice}` : error.message), "error");

// In place of a job or a deployment that is not there, or that could not be had.
export function absent(what, error) {
  const none = (error.data?.code ?? "not_found") === "not_found";
  return element("div", { class: "empty" }, element("h1", {}, none ? `No such ${what}` : `This ${what} cannot be shown`), plain(error.message), ". ",
    none ? null : [element("button", { type: "button", onclick: () => location.reload() }, "Try again"), " "],
    element("a", { href: `#/${what}s` }, `All ${what}s`));
}
