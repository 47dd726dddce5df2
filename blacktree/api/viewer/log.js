// The log: one row an event, only the rows in sight exist. Any length opens at once: a row's place follows from its number.

import { element } from "./format.js";
import { refresh, row, signature } from "./rows.js";

const ROW = 20; // pixels; log.css says the same
const TALLEST = 8_000_000; // pixels; browsers give up on taller elements

export class Log {
  #top = 0; // the first row in sight, from 0, with a fraction
  #tail = 0; // how many rows fill the view at the end; fewer than fit where lines are wrapped
  #frame = null;
  #place = 0; // where the scroll bar was put by us
  #seen = 0;
  #anchor = 0;
  #made = new Map(); // rows that are in the page, by number
  #held = false; // the reader has a finger or the mouse down
  following = true;
  wrap = false;
  look = { stamps: "off", found: "", startedAt: Date.now(), current: 0, selected: null, whole: new Set() };

  constructor(pages, folds, { onSelect, onFollow, onFold, href, label, tags }) {
    this.pages = pages;
    this.folds = folds;
    this.onSelect = onSelect;
    this.onFollow = onFollow;
    this.onFold = onFold;
    Object.assign(this.look, { folds: onFold ? folds : null, href, tags });
    this.lines = element("div", { class: "lines" });
    this.rows = element("div", { class: "rows", tabindex: "0", role: "group", "aria-label": "Lines" }, this.lines);
    this.sheet = element("div", { class: "sheet" }, this.rows);
    this.spacer = element("div", { class: "spacer" }, this.sheet);
    this.view = element("div", { class: "logview", tabindex: "0", role: "region", "aria-label": label }, this.spacer);
    this.view.addEventListener("scroll", () => this.#scrolled());
    this.view.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    this.view.addEventListener("keydown", (event) => this.#key(event));
    this.view.addEventListener("pointerdown", () => this.#hold());
    this.rows.addEventListener("click", (event) => this.#click(event));
    this.release = () => this.#release();
    for (const name of ["pointerup", "pointercancel", "touchend"]) addEventListener(name, this.release);
    pages.addEventListener("arrived", () => this.draw());
    this.resizing = new ResizeObserver(() => this.draw());
    this.resizing.observe(this.view);
  }

  close() {
    this.resizing.disconnect();
    cancelAnimationFrame(this.#frame);
    for (const name of ["pointerup", "pointercancel", "touchend"]) removeEventListener(name, this.release);
  }

  get total() {
    return this.folds.rows;
  }

  get #fits() {
    return Math.max(1, this.view.clientHeight / ROW);
  }

  get #last() {
    return Math.max(0, this.total - (this.wrap && this.#tail ? this.#tail : this.#fits));
  }

  // Something new is there, or something is to look different.
  draw() {
    if (this.#frame !== null) return;
    this.#frame = requestAnimationFrame(() => {
      this.#frame = null;
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
    this.folds.reveal(seq);
    this.#stay();
    this.#top = Math.max(0, Math.min(this.#last, this.folds.rowOf(seq) - Math.floor(this.#fits / 3)));
    this.draw();
  }

  // Keep an event where it is while what lies above it changes.
  keep(change) {
    const seq = this.folds.seqAt(Math.floor(this.#top));
    const part = this.#top % 1;
    return change().then(() => {
      if (!this.following) this.#top = Math.max(0, Math.min(this.#last, this.folds.rowOf(seq) + part));
      this.draw();
    });
  }

  get unseen() {
    return this.following ? 0 : Math.max(0, this.pages.end - this.#seen);
  }

  #stay() {
    if (this.following) this.#seen = this.pages.end;
    this.following = false;
    this.onFollow();
  }

  #paint() {
    this.folds.refresh();
    const height = Math.min(TALLEST, this.total * ROW);
    this.spacer.style.height = `${Math.max(height, this.view.clientHeight)}px`;
    this.sheet.style.height = `${this.view.clientHeight}px`;
    if (this.following && !this.#held) this.#top = this.#last;
    if (this.following) this.#seen = this.pages.end;
    this.#top = Math.max(0, Math.min(this.#top, this.#last));
    const atEnd = this.#top >= this.#last - 0.01;
    const from = Math.floor(atEnd ? Math.max(0, this.total - this.#fits - 1) : this.#top);
    const shown = [];
    for (let index = from; index < Math.min(this.total, from + this.#fits + 3); index += 1) shown.push(this.#row(this.folds.seqAt(index)));
    this.#put(shown);
    const overfull = atEnd && this.total > Math.min(this.#fits, this.#tail || this.#fits);
    this.rows.classList.toggle("wrap", this.wrap);
    this.rows.classList.toggle("end", overfull);
    if (this.wrap) this.#measure(shown);
    const tall = this.wrap ? shown[0]?.offsetHeight ?? ROW : ROW;
    this.lines.style.transform = overfull ? "" : `translateY(${-(this.#top - from) * tall}px)`;
    this.#bar();
    this.view.setAttribute("aria-busy", shown.some((each) => each.classList.contains("missing")) ? "true" : "false");
  }

  // Put the scroll bar where we are.
  #bar() {
    const range = this.spacer.offsetHeight - this.view.clientHeight;
    const place = this.#last > 0 ? Math.round((this.#top / this.#last) * range) : 0;
    if (!this.#held && Math.abs(this.view.scrollTop - place) >= 1) this.view.scrollTop = place;
    this.#place = this.view.scrollTop;
  }

  // Rows that stay are left alone: what the reader has marked in them stays marked.
  #put(shown) {
    const wanted = new Set(shown);
    for (const node of [...this.lines.children]) if (!wanted.has(node)) node.remove();
    let next = this.lines.firstChild;
    for (const node of shown) {
      if (node === next) next = next.nextSibling;
      else this.lines.insertBefore(node, next);
    }
    for (const [seq, { node }] of this.#made) if (!wanted.has(node)) this.#made.delete(seq);
  }

  #row(seq) {
    const event = this.pages.get(seq);
    const sign = signature(seq, event, this.look);
    const made = this.#made.get(seq);
    if (made?.sign === sign) {
      refresh(made.node, event, this.look);
      return made.node;
    }
    const node = row(seq, event, this.look);
    this.#made.set(seq, { sign, node });
    return node;
  }

  // Wrapped rows are of any height: count how many fill the view from below.
  #measure(shown) {
    let left = this.view.clientHeight;
    let rows = 0;
    for (let index = shown.length - 1; index >= 0 && left > 0; index -= 1) {
      const tall = Math.max(ROW, shown[index].offsetHeight);
      rows += Math.min(1, left / tall);
      left -= tall;
    }
    const last = shown[shown.length - 1];
    if (last && Number(last.dataset.seq) === this.pages.end && left <= 0) this.#tail = rows;
  }

  #scrolled() {
    if (Math.abs(this.view.scrollTop - this.#place) < 1) return;
    const range = this.spacer.offsetHeight - this.view.clientHeight;
    this.#place = this.view.scrollTop;
    this.#move(range > 0 ? (this.view.scrollTop / range) * this.#last : 0);
  }

  // Only where a pixel of the scroll bar is more than a row's must the wheel be translated.
  #wheel(event) {
    // At once: the next line may come before the scroll bar has moved.
    if (event.deltaY < 0 && this.following && this.total > this.#fits) this.#move(this.#top - 1);
    const fine = this.total * ROW <= TALLEST && !this.wrap;
    if (fine || event.ctrlKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
    event.preventDefault();
    const tall = this.wrap ? this.lines.firstChild?.offsetHeight || ROW : ROW;
    const scale = event.deltaMode === 1 ? 1 : event.deltaMode === 2 ? this.#fits : 1 / tall;
    this.#move(this.#top + event.deltaY * scale);
  }

  #move(top) {
    const before = this.following;
    this.#top = Math.max(0, Math.min(top, this.#last));
    this.following = this.#top >= this.#last - 0.5;
    if (!this.following && before) this.#seen = this.pages.end;
    if (before !== this.following) this.onFollow();
    this.draw();
  }

  #key(event) {
    if ((event.target !== this.view && event.target !== this.rows) || event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, this.#fits - 2);
    const moves = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, " ": event.shiftKey ? -page : page };
    if (event.key in moves) this.#move(this.#top + moves[event.key]);
    else if (event.key === "Home") this.#move(0);
    else if (event.key === "End") this.follow();
    else if (event.key === "ArrowLeft" || event.key === "ArrowRight") this.rows.scrollLeft += event.key === "ArrowLeft" ? -80 : 80;
    else return;
    event.preventDefault();
  }

  #hold() {
    this.#held = true;
  }

  #release() {
    if (!this.#held) return;
    this.#held = false;
    // Whoever marks something wants it to stay.
    const marked = getSelection();
    if (this.following && marked && !marked.isCollapsed && this.rows.contains(marked.anchorNode)) this.#stay();
    this.draw();
  }

  #click(event) {
    const target = event.target.closest("button, a");
    if (!target) return;
    if (target.dataset.whole) {
      this.look.whole.add(Number(target.dataset.whole));
      this.draw();
      return;
    }
    if (target.dataset.fold) {
      this.onFold(target.dataset.fold);
      return;
    }
    if (!target.dataset.seq || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const seq = Number(target.dataset.seq);
    if (event.shiftKey && this.#anchor) this.look.selected = [Math.min(this.#anchor, seq), Math.max(this.#anchor, seq)];
    else {
      this.#anchor = seq;
      this.look.selected = [seq, seq];
    }
    getSelection()?.removeAllRanges();
    this.#stay();
    this.onSelect(this.look.selected);
    this.draw();
  }
}
