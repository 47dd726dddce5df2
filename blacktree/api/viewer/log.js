// The log: one row an event, only the rows in sight exist. Any length opens at once, because a row's number is its place.

import { nodes, stripped } from "/viewer/ansi.js";
import { clock, duration, element, plain, toast } from "/viewer/format.js";

const ROW = 20; // pixels; viewer.css says the same
const TALLEST = 8_000_000; // pixels; browsers give up on taller elements
const LONGEST = 4000; // characters of a line that are shown at first

export class Log {
  #top = 0; // the first row in sight, from 0, with a fraction
  #drawn = null;
  #place = 0; // where the scroll bar was put by us
  #seen = 0;
  #anchor = 0;
  following = true;
  wrap = false;
  stamps = "off";
  found = "";
  hits = new Set();
  current = 0;
  selected = null;
  whole = new Set();

  constructor(pages, { onSelect, onFollow, startedAt }) {
    this.pages = pages;
    this.onSelect = onSelect;
    this.onFollow = onFollow;
    this.startedAt = startedAt;
    this.rows = element("div", { class: "rows", role: "presentation" });
    this.sheet = element("div", { class: "sheet" }, this.rows);
    this.spacer = element("div", { class: "spacer" }, this.sheet);
    this.view = element(
      "div",
      { class: "logview", tabindex: "0", role: "region", "aria-label": "Log. Arrow keys scroll, End follows, slash searches." },
      this.spacer,
    );
    this.view.addEventListener("scroll", () => this.#scrolled());
    this.view.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.view.addEventListener("keydown", (event) => this.#key(event));
    this.rows.addEventListener("click", (event) => this.#click(event));
    pages.addEventListener("arrived", () => this.draw());
    this.resizing = new ResizeObserver(() => this.draw());
    this.resizing.observe(this.view);
  }

  close() {
    this.resizing.disconnect();
  }

  get total() {
    return this.pages.end;
  }

  get #fits() {
    return Math.max(1, this.view.clientHeight / ROW);
  }

  get #last() {
    return Math.max(0, this.total - this.#fits);
  }

  // Something new is there, or something is to look different.
  draw() {
    if (this.#drawn !== null) return;
    this.#drawn = requestAnimationFrame(() => {
      this.#drawn = null;
      this.#paint();
    });
  }

  follow() {
    this.following = true;
    this.onFollow();
    this.draw();
  }

  // Bring an event into sight, a third from the top.
  show(seq) {
    this.following = false;
    this.#top = Math.max(0, Math.min(this.#last, seq - 1 - Math.floor(this.#fits / 3)));
    this.onFollow();
    this.draw();
  }

  get unseen() {
    return this.following ? 0 : Math.max(0, this.total - this.#seen);
  }

  #paint() {
    const height = Math.min(TALLEST, this.total * ROW);
    this.spacer.style.height = `${Math.max(height, this.view.clientHeight)}px`;
    this.sheet.style.height = `${this.view.clientHeight}px`;
    if (this.following) {
      this.#top = this.#last;
      this.#seen = this.total;
    }
    this.#top = Math.max(0, Math.min(this.#top, this.#last));
    const range = this.spacer.offsetHeight - this.view.clientHeight;
    const place = this.#last > 0 ? Math.round((this.#top / this.#last) * range) : 0;
    if (Math.abs(this.view.scrollTop - place) >= 1) this.view.scrollTop = place;
    this.#place = this.view.scrollTop;
    const first = Math.floor(this.#top);
    const made = [];
    for (let index = first; index < Math.min(this.total, first + this.#fits + 2); index += 1) made.push(this.#row(index + 1));
    this.rows.replaceChildren(...made);
    const atEnd = this.#top >= this.#last - 0.01;
    this.rows.classList.toggle("wrap", this.wrap);
    this.rows.classList.toggle("end", atEnd && this.total > this.#fits);
    this.rows.style.transform = atEnd ? "" : `translateY(${-(this.#top - first) * ROW}px)`;
    this.view.setAttribute("aria-busy", made.some((row) => row.classList.contains("missing")) ? "true" : "false");
  }

  #row(seq) {
    const event = this.pages.get(seq);
    const number = element("button", { class: "number", type: "button", dataset: { seq }, tabindex: "-1" }, String(seq));
    const row = element("div", { class: "row", dataset: { seq } }, number);
    if (this.selected && seq >= this.selected[0] && seq <= this.selected[1]) row.classList.add("selected");
    if (seq === this.current) row.classList.add("current");
    if (!event) {
      row.classList.add("missing");
      row.append("…");
      return row;
    }
    if (this.stamps !== "off") row.append(element("span", { class: "stamp" }, this.#stamp(event.time)));
    row.append(this.#content(row, event));
    return row;
  }

  #stamp(time) {
    return this.stamps === "absolute" ? clock(time) : `+${((Date.parse(time) - this.startedAt) / 1000).toFixed(1)} s`;
  }

  #content(row, event) {
    row.classList.add(event.type);
    switch (event.type) {
      case "log": {
        if (event.stream === "stderr") row.classList.add("stderr");
        const long = event.line.length > LONGEST && !this.whole.has(event.seq);
        const text = element("span", { class: "text" }, nodes(long ? event.line.slice(0, LONGEST) : event.line, this.found));
        if (long) text.append(element("button", { type: "button", class: "more", dataset: { whole: event.seq } }, `… ${event.line.length - LONGEST} more characters`));
        if (event.partial) text.append(element("span", { class: "aside", title: "This line was longer than 64 KiB and goes on in the next row." }, " ↩"));
        return text;
      }
      case "step_started":
        return element("span", { class: "text" }, `▶ ${plain(event.name)}`);
      case "step_finished":
        return element(
          "span",
          { class: `text ${event.ok ? "" : "bad"}` },
          `${event.ok ? "✓" : "✗"} ${plain(event.name)} ${event.cached ? "(cached)" : `(${duration(event.seconds)})`}`,
        );
      case "state":
        return element("span", { class: "text" }, `● ${event.to}${event.reason ? `: ${plain(event.reason)}` : ""}${event.attempt ? ` (attempt ${event.attempt})` : ""}`);
      case "progress":
        return element("span", { class: "text" }, `${plain(event.step)}: ${event.current}${event.total ? ` of ${event.total}` : ""} ${plain(event.unit)}`);
      case "notice":
        return element("span", { class: "text" }, `⚠ ${plain(event.text)}`);
      default:
        return element("span", { class: "text" }, plain(event.type));
    }
  }

  #scrolled() {
    if (Math.abs(this.view.scrollTop - this.#place) < 1) return;
    const range = this.spacer.offsetHeight - this.view.clientHeight;
    this.#move(range > 0 ? (this.view.scrollTop / range) * this.#last : 0);
  }

  // Only where a pixel of the scroll bar is more than a row's must the wheel be translated.
  #wheel(event) {
    // At once: the next line may come before the scroll bar has moved.
    if (event.deltaY < 0 && this.following && this.total > this.#fits) this.#move(this.#top - 1);
    if (this.total * ROW <= TALLEST || event.ctrlKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
    event.preventDefault();
    const scale = event.deltaMode === 1 ? 1 : event.deltaMode === 2 ? this.#fits : 1 / ROW;
    this.#move(this.#top + event.deltaY * scale);
  }

  #move(top) {
    const before = this.following;
    this.#top = Math.max(0, Math.min(top, this.#last));
    this.following = this.#top >= this.#last - 0.5;
    if (!this.following && before) this.#seen = this.total;
    if (before !== this.following) this.onFollow();
    this.draw();
  }

  #key(event) {
    if (event.target !== this.view || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, this.#fits - 2);
    const moves = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, " ": event.shiftKey ? -page : page };
    if (event.key in moves) this.#move(this.#top + moves[event.key]);
    else if (event.key === "Home") this.#move(0);
    else if (event.key === "End") this.follow();
    else return;
    event.preventDefault();
  }

  #click(event) {
    const target = event.target.closest("button");
    if (!target) return;
    if (target.dataset.whole) {
      this.whole.add(Number(target.dataset.whole));
      this.draw();
      return;
    }
    const seq = Number(target.dataset.seq);
    if (event.shiftKey && this.#anchor) this.selected = [Math.min(this.#anchor, seq), Math.max(this.#anchor, seq)];
    else {
      this.#anchor = seq;
      this.selected = [seq, seq];
    }
    this.following = false;
    this.onFollow();
    this.onSelect(this.selected);
    this.draw();
  }

  // The selected lines, or the whole log where it is small enough to be copied.
  async copy() {
    const [first, last] = this.selected ?? [1, this.total];
    if (last - first > 100_000) {
      toast("That is too much to copy: choose lines by their numbers (Shift for a range), or download the log.", "error");
      return;
    }
    const events = await this.pages.range(first, last);
    const text = events.filter((event) => event.type === "log").map((event) => stripped(event.line)).join("\n");
    await navigator.clipboard.writeText(`${text}\n`);
    toast(`Copied ${events.length === 1 ? "1 line" : `${events.length} lines`}`);
  }
}
