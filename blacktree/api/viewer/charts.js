// Bars over time, drawn as SVG: nothing that needs a library.

import { clock, element } from "./format.js";

const WIDTH = 640;
const HEIGHT = 150;
const LEFT = 44;
const BOTTOM = 22;

function svg(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// A number at or above `most` that reads well on an axis.
export function ceiling(most) {
  if (most <= 1) return 1;
  const power = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 5, 10].map((step) => step * power).find((each) => each >= most);
}

// `bins`: one a column, each a list of [class, value]; `told(value)`: how the axis says it.
export function chart({ title, said, bins, end, binSeconds, told, stacked = true }) {
  const sums = bins.map((parts) => (stacked ? parts.reduce((sum, [, value]) => sum + value, 0) : Math.max(0, ...parts.map(([, value]) => value))));
  const top = ceiling(Math.max(0, ...sums));
  const plot = HEIGHT - BOTTOM - 8;
  const step = (WIDTH - LEFT) / bins.length;
  const made = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${title}: ${said}` });
  for (const share of [0, 0.5, 1]) {
    const y = 8 + plot * (1 - share);
    made.append(svg("line", { x1: LEFT, x2: WIDTH, y1: y, y2: y, class: "grid" }));
    if (share) made.append(svg("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, told(top * share)));
  }
  const every = Math.max(1, Math.round(bins.length / 4));
  bins.forEach((parts, index) => {
    const x = LEFT + index * step;
    let base = 8 + plot;
    const width = Math.max(1, step - 2);
    const column = svg("g", {});
    const from = clock(Date.parse(end) - (bins.length - index) * binSeconds * 1000, false);
    column.append(svg("title", {}, `${from}: ${parts.map(([kind, value]) => `${told(value)} ${kind}`).join(", ")}`));
    for (const [kind, value] of parts) {
      const height = Math.max(value > 0 ? 1.5 : 0, (value / top) * plot);
      if (stacked) base -= height;
      column.append(svg("rect", { x: x + 1, y: stacked ? base : base - height, width, height, rx: Math.min(2, width / 3), class: kind }));
    }
    made.append(column);
    if (index % every === 0) made.append(svg("text", { x: x + 1, y: HEIGHT - 4 }, from));
  });
  return element("figure", {}, element("figcaption", {}, element("strong", {}, title), element("span", {}, said)), made);
}
