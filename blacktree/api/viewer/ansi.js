// Terminal colours (ECMA-48, SGR) as spans with classes; every other escape is left out, nothing becomes markup.

import { element, plain } from "./format.js";

const SEQUENCE = /\u001b\[([0-9;:]*)m|\u001b\[[0-?]*[ -/]*[@-~]|\u001b[\]PX^_][^\u0007\u001b]*(?:\u0007|\u001b\\|$)|\u001b[@-Z\\-_]/g;
const PLAIN = /^[\t -~]*$/;
const FLAGS = ["bold", "dim", "italic", "underline", "struck", "inverse"];

// The nearest of the sixteen, so that it can be read on light and on dark.
function nearest(red, green, blue) {
  const most = Math.max(red, green, blue);
  const least = Math.min(red, green, blue);
  if (most - least < 40) return most < 70 ? 8 : undefined;
  const middle = (most + least) / 2;
  return (red > middle ? 1 : 0) + (green > middle ? 2 : 0) + (blue > middle ? 4 : 0) || 8;
}

function from256(number) {
  if (number < 16) return number;
  if (number >= 232) return nearest(8 + (number - 232) * 10, 8 + (number - 232) * 10, 8 + (number - 232) * 10);
  const level = (value) => (value ? 55 + value * 40 : 0);
  const cube = number - 16;
  return nearest(level(Math.floor(cube / 36)), level(Math.floor(cube / 6) % 6), level(cube % 6));
}

// A colour of 256 or of red, green and blue, at `index` of the list; and how many codes it takes.
function rich(list, index) {
  if (list[index + 1] === 5) return [from256(list[index + 2] ?? 0), 2];
  if (list[index + 1] === 2) return [nearest(list[index + 2] ?? 0, list[index + 3] ?? 0, list[index + 4] ?? 0), 4];
  return [undefined, 1];
}

function applied(style, codes) {
  let next = { ...style };
  const list = codes === "" ? [0] : codes.replace(/(38|48):2::/g, "$1:2:").split(/[;:]/).map(Number);
  for (let index = 0; index < list.length; index += 1) {
    const code = list[index];
    if (code === 0) next = {};
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.underline = true;
    else if (code === 7) next.inverse = true;
    else if (code === 9) next.struck = true;
    else if (code === 22) next.bold = next.dim = false;
    else if (code === 23) next.italic = false;
    else if (code === 24) next.underline = false;
    else if (code === 27) next.inverse = false;
    else if (code === 29) next.struck = false;
    else if (code >= 30 && code <= 37) next.colour = code - 30;
    else if (code >= 90 && code <= 97) next.colour = code - 82;
    else if (code === 39) next.colour = undefined;
    else if (code >= 40 && code <= 47) next.ground = code - 40;
    else if (code >= 100 && code <= 107) next.ground = code - 100;
    else if (code === 49) next.ground = undefined;
    else if (code === 38 || code === 48) {
      const [colour, taken] = rich(list, index);
      if (code === 38) next.colour = colour;
      else next.ground = colour === undefined ? undefined : colour % 8;
      index += taken;
    }
  }
  return next;
}

function piece(text, style) {
  const classes = FLAGS.filter((name) => style[name]);
  if (style.colour !== undefined) classes.push(`c${style.colour}`);
  if (style.ground !== undefined) classes.push(`g${style.ground}`);
  return classes.length ? element("span", { class: classes.join(" ") }, text) : document.createTextNode(text);
}

// The last carriage return wins, as on a terminal.
function shown(line) {
  const trimmed = line.endsWith("\r") ? line.slice(0, -1) : line;
  return trimmed.slice(trimmed.lastIndexOf("\r") + 1);
}

export function nodes(line, found = "") {
  if (!found && PLAIN.test(line)) return [document.createTextNode(line)];
  const made = [];
  let style = {};
  let end = 0;
  const text = shown(line);
  const add = (from, to) => {
    if (to <= from) return;
    for (const part of split(plain(text.slice(from, to)), found)) {
      made.push(part.hit ? element("mark", {}, piece(part.text, style)) : piece(part.text, style));
    }
  };
  for (const match of text.matchAll(SEQUENCE)) {
    add(end, match.index);
    end = match.index + match[0].length;
    if (match[1] !== undefined) style = applied(style, match[1]);
  }
  add(end, text.length);
  return made;
}

function split(text, found) {
  if (!found) return [{ text }];
  const low = text.toLowerCase();
  const wanted = found.toLowerCase();
  const parts = [];
  let at = 0;
  for (let hit = low.indexOf(wanted); hit >= 0 && wanted; hit = low.indexOf(wanted, at)) {
    if (hit > at) parts.push({ text: text.slice(at, hit) });
    parts.push({ text: text.slice(hit, hit + wanted.length), hit: true });
    at = hit + wanted.length;
  }
  if (at < text.length) parts.push({ text: text.slice(at) });
  return parts;
}

export const stripped = (line) => plain(shown(line).replace(SEQUENCE, ""));
