// Terminal colours (ECMA-48, SGR) as spans with classes; every other escape is left out, nothing becomes markup.

import { element, plain } from "/viewer/format.js";

const SEQUENCE = /\u001b\[([0-9;:]*)m|\u001b\[[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\u001b[@-Z\\-_]/g;

function applied(style, codes) {
  let next = { ...style };
  const list = codes === "" ? [0] : codes.split(/[;:]/).map(Number);
  for (let index = 0; index < list.length; index += 1) {
    const code = list[index];
    if (code === 0) next = {};
    else if (code === 1) next.bold = true;
    else if (code === 2) next.dim = true;
    else if (code === 3) next.italic = true;
    else if (code === 4) next.underline = true;
    else if (code === 22) next.bold = next.dim = false;
    else if (code === 23) next.italic = false;
    else if (code === 24) next.underline = false;
    else if (code >= 30 && code <= 37) next.colour = code - 30;
    else if (code >= 90 && code <= 97) next.colour = code - 82;
    else if (code === 39) next.colour = undefined;
    else if (code === 38 || code === 48) {
      // 256 colours and RGB: the basic sixteen are kept, of the others only the brightness would be.
      const skip = list[index + 1] === 5 ? 2 : 4;
      if (code === 38 && skip === 2 && list[index + 2] < 16) next.colour = list[index + 2];
      index += skip;
    }
  }
  return next;
}

function piece(text, style) {
  const classes = ["bold", "dim", "italic", "underline"].filter((name) => style[name]);
  if (style.colour !== undefined) classes.push(`c${style.colour}`);
  return classes.length ? element("span", { class: classes.join(" ") }, text) : document.createTextNode(text);
}

// The last carriage return wins, as on a terminal.
function shown(line) {
  const trimmed = line.endsWith("\r") ? line.slice(0, -1) : line;
  return trimmed.slice(trimmed.lastIndexOf("\r") + 1);
}

export function nodes(line, found = "") {
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
