// A log with everything around it: search, following, folding, time stamps, wrapping, copying, links. Jobs and
// deployments have the same one; a job's steps can be folded, of a deployment one version or replica be shown alone.

import { stripped } from "./ansi.js";
import { announce, clock, count, element, fill, tell, toast } from "./format.js";
import { Folds } from "./folds.js";
import { Log } from "./log.js";
import { Search } from "./search.js";

const STAMPS = ["off", "absolute", "relative"];
const MOST_COPIED = 100_000;

export class LogBox {
  // `address`: of the page in the viewer; a line's link is that and `/L12`.
  constructor(pages, { address, download, label, job }) {
    this.pages = pages;
    this.address = address;
    this.folds = new Folds(pages);
    this.ended = false;
    this.log = new Log(pages, this.folds, {
      onSelect: ([first, last]) => history.replaceState(null, "", `${address}/L${first}${last > first ? `-${last}` : ""}`),
      onFollow: () => this.#followed(),
      onFold: job ? (key) => this.#fold(() => this.folds.toggle(key)) : null,
      tags: !job,
      href: (seq) => `${address}/L${seq}`,
      label: `${label}. Arrow keys scroll, End follows.`,
    });
    this.search = new Search(pages, () => this.#searched());
    this.#build(download, job);
    this.#settings();
  }

  close() {
    this.log.close();
    this.search.stop();
    this.pages.close();
    clearTimeout(this.typing);
    clearTimeout(this.looking);
  }

  #build(download, job) {
    const button = (text, title, press, more = {}) => element("button", { type: "button", title, onclick: press, ...more }, text);
    this.input = element("input", {
      type: "search", placeholder: "Search the whole log", "aria-label": "Search the log", maxlength: "1000",
      onkeydown: (event) => {
        if (event.key === "Enter") this.step(event.shiftKey);
        if (event.key === "Escape") this.log.view.focus();
      },
      oninput: () => {
        clearTimeout(this.typing);
        this.typing = setTimeout(() => this.#askText(), 250);
      },
    });
    this.count = element("output", { class: "count", "aria-label": "Hits" });
    this.stamps = element("select", { "aria-label": "Time stamps", title: "Time stamps (t)", onchange: () => this.stamp(this.stamps.value) },
      STAMPS.map((name) => element("option", { value: name }, name === "off" ? "No times" : `Times: ${name}`)));
    this.wrapping = button("Wrap", "Wrap long lines (w)", () => this.wrap(), { "aria-pressed": "false" });
    this.folding = button("Fold", "Fold or unfold every step (z)", () => this.foldAll(), { "aria-pressed": "false" });
    this.whose = element("select", { "aria-label": "Whose lines", title: "Lines of one version or replica", onchange: () => this.#choose() });
    this.choices([]);
    this.resume = button("Follow", "Go on with the newest line (f)", () => this.log.follow(), { class: "resume", hidden: true });
    this.bar = element("div", { class: "bar", role: "toolbar", "aria-label": "Log" },
      element("span", { class: "group find" }, this.input, this.count,
        button("↑", "Previous hit (Shift+N)", () => this.step(true), { class: "icon", "aria-label": "Previous hit" }),
        button("↓", "Next hit (n)", () => this.step(false), { class: "icon", "aria-label": "Next hit" })),
      element("span", { class: "gap" }),
      element("span", { class: "group" },
        button("First error", "Jump to the first line that reads like an error (e)", () => this.firstError()),
        job ? this.folding : this.whose, this.stamps, this.wrapping,
        button("Copy", "Copy the chosen lines, or all (c)", () => this.copy().catch(tell)),
        element("a", { class: "button", href: `${this.pages.base}/log`, download, title: "The whole log as plain text" }, "Download")));
    this.resumed = element("div", { class: "resumed", role: "status", hidden: true });
    this.box = element("section", { class: "logbox", "aria-label": "Log" }, this.bar, this.resumed,
      element("div", { class: "frame" }, this.log.view, this.resume));
  }

  // How the reader likes logs, in this browser.
  #settings() {
    this.stamp(STAMPS.includes(localStorage.getItem("stamps")) ? localStorage.getItem("stamps") : "off");
    if (localStorage.getItem("wrap") === "yes") this.wrap();
  }

  // Keys of this part of the page, with what they are told to do in the help.
  keys() {
    const folding = this.log.onFold ? { z: () => this.foldAll() } : {};
    return {
      "/": () => this.input.focus(), n: () => this.step(false), N: () => this.step(true), e: () => this.firstError(), ...folding, f: () => this.log.follow(), w: () => this.wrap(), c: () => this.copy().catch(tell),
      t: () => this.stamp(STAMPS[(STAMPS.indexOf(this.log.look.stamps) + 1) % 3]),
    };
  }

  // New events. They were numbered by the farm: what is there already changes nothing.
  hear(events) {
    this.pages.hear(events);
    this.folds.hear(events);
    if (this.asked) this.looking ??= setTimeout(() => this.#lookOn(), 1000);
    this.log.draw();
    this.#followed();
  }

  #lookOn() {
    this.looking = undefined;
    this.search.more().catch(() => {
      // The next event asks again.
    });
  }

  // Nothing more will come.
  finish() {
    this.ended = true;
    this.#followed();
  }

  // After a loss: says where it goes on, until the reader has seen it.
  caughtUp() {
    fill(this.resumed,
      element("span", {}, `The connection was lost and is back since ${clock(Date.now(), false)}. The log went on after line ${this.pages.heard.toLocaleString("en")}; nothing is missing.`),
      element("button", { type: "button", class: "small plain", "aria-label": "Dismiss", onclick: () => { this.resumed.hidden = true; } }, "✕"));
    this.resumed.hidden = false;
    if (this.folds.any) this.#fold(() => this.folds.learn());
  }

  show(seq, chosen = null) {
    if (chosen) this.log.look.selected = chosen;
    else this.log.look.current = seq;
    this.log.show(seq);
    // What is hidden came to light: everything is shown then.
    this.whose.value = this.folds.only;
  }

  // What can be shown alone: `[key, name]` each, where a key is `VERSION/` or `VERSION/VERSION/INDEX` (folds.js).
  choices(rows) {
    const sign = JSON.stringify(rows);
    if (sign === this.offered) return;
    this.offered = sign;
    fill(this.whose, [["", "All versions"], ...rows].map(([value, name]) => element("option", { value }, name)));
    this.whose.value = this.folds.only;
  }

  #choose() {
    const only = this.whose.value;
    this.#fold(() => this.folds.show(only));
    if (this.asked) this.#ask(this.asked, this.log.look.found);
  }

  #askText() {
    this.#ask(this.input.value ? { text: this.input.value } : null, this.input.value);
  }

  stamp(name) {
    this.stamps.value = name;
    this.log.look.stamps = name;
    localStorage.setItem("stamps", name);
    this.log.draw();
  }

  wrap() {
    this.log.wrap = !this.log.wrap;
    this.wrapping.setAttribute("aria-pressed", String(this.log.wrap));
    localStorage.setItem("wrap", this.log.wrap ? "yes" : "no");
    this.log.draw();
  }

  foldAll() {
    this.#fold(() => this.folds.all(!this.folds.folded.size));
  }

  #fold(change) {
    this.log.keep(change).then(() => {
      this.folding.setAttribute("aria-pressed", String(this.folds.folded.size > 0));
    }, tell);
  }

  #ask(question, found = "") {
    this.asked = question;
    this.log.look.found = found;
    this.log.look.current = 0;
    this.jump = Boolean(question);
    const [attempt, ...step] = this.whose.value.split("/");
    if (question) this.search.start({ ...question, attempt, step: step.join("/") }).catch(tell);
    else {
      this.search.stop();
      this.count.textContent = "";
    }
    this.log.draw();
  }

  firstError() {
    this.input.value = "";
    this.#ask({ errors: "1" });
  }

  #searched() {
    const { hits, done } = this.search;
    if (this.jump && hits.length) {
      this.jump = false;
      this.show(hits[0]);
    }
    // Whoever looked and found nothing is not torn away by what comes later.
    if (done) this.jump = false;
    const at = hits.indexOf(this.log.look.current) + 1;
    this.count.textContent = hits.length
      ? `${at ? `${at.toLocaleString("en")} of ` : ""}${hits.length.toLocaleString("en")}${done ? "" : "…"}`
      : done ? "no hits" : "searching…";
    this.log.draw();
  }

  step(backwards) {
    const seq = this.search.next(this.log.look.current, backwards);
    if (!seq) return;
    this.show(seq);
    this.#searched();
  }

  #followed() {
    const { following, unseen } = this.log;
    this.resume.hidden = following || (this.ended && !unseen);
    this.resume.textContent = unseen ? `Follow · ${count(unseen, "new line")}` : "Follow";
    if (following !== this.told) announce(following ? "Following the log" : "No longer following the log");
    this.told = following;
  }

  // The chosen lines, or the whole log where it is small enough to be copied.
  async copy() {
    const [first, last] = this.log.look.selected ?? [this.pages.first, this.pages.end];
    if (last - first > MOST_COPIED) {
      toast("That is too much to copy: choose lines by their numbers (Shift for a range), or download the log.", "error");
      return;
    }
    const events = (await this.pages.range(first, last)).filter((event) => event.type === "log");
    // A piece of a longer line is no line of its own.
    const text = events.map((event) => stripped(event.line) + (event.partial ? "" : "\n")).join("");
    await navigator.clipboard.writeText(text);
    toast(`Copied ${count(events.length, "line")}`);
  }
}
