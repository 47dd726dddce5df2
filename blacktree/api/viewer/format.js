// Small pure helpers: elements without markup, times, sizes.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (name === "class") made.className = value;
    else if (name === "dataset") Object.assign(made.dataset, value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

// Replaces what is in a node; what is null is left out.
export function fill(node, ...children) {
  node.replaceChildren(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== false));
}

// Characters that would steer the text around them (bidirectional controls) or hide in it are shown by number.
const STEERING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

export function plain(text) {
  return String(text ?? "").replace(STEERING, (char) =>
    `\u27e8${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}\u27e9`,
  );
}

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

export function ago(time) {
  const passed = (Date.now() - Date.parse(time)) / 1000;
  if (passed < 5) return "just now";
  if (passed < 60) return `${Math.round(passed / 5) * 5} s ago`;
  return passed < 86400 ? `${duration(passed).replace(/ \d\d s$/, "")} ago` : `${Math.floor(passed / 86400)} d ago`;
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

export function clock(time) {
  const date = new Date(time);
  const two = (value, width = 2) => String(value).padStart(width, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${two(date.getMilliseconds(), 3)}`;
}

export function repositoryName(address) {
  const tail = String(address ?? "").replace(/\/+$/, "").replace(/\.git$/, "");
  return tail.split(/[/:]/).slice(-2).join("/") || tail;
}

export const ENDED = new Set(["succeeded", "failed", "canceled", "timed_out", "lost"]);

const MARKS = {
  queued: "○", assigned: "◔", running: "●", canceling: "◌", succeeded: "✓", failed: "✗", canceled: "⊘",
  timed_out: "⏱", lost: "?",
};

export const imageName = (name) => (name?.startsWith("sha256:") ? name.slice(0, 19) : name ?? "");

export function state(name) {
  return element("span", { class: `state ${name}` }, element("span", { "aria-hidden": "true" }, MARKS[name] ?? "•"), ` ${name.replace("_", " ")}`);
}

export function toast(text, kind = "") {
  const made = element("div", { class: `toast ${kind}` }, text);
  document.getElementById("toasts").append(made);
  setTimeout(() => made.remove(), kind === "error" ? 12000 : 5000);
}

export const tell = (error) => toast(plain(error.data?.advice ? `${error.message}: ${error.data.advice}` : error.message), "error");
