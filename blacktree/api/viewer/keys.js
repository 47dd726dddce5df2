// Keys for those who like them: one table, told in one dialog, and a switch to be rid of them (WCAG 2.1.4).

import { element, fill } from "./format.js";

const HELP = [
  ["Everywhere", [["?", "this help"], ["g j", "jobs"], ["g d", "deployments"], ["g f", "farm"], ["g b", "build something"]]],
  ["Jobs", [["/", "filter by text"], ["j, k", "next job, previous job"], ["Enter", "open it"]]],
  ["A log", [
    ["/", "search the whole log"], ["n, N", "next hit, previous hit"], ["e", "first error"], ["f, End", "follow the newest line"],
    ["z", "fold or unfold all steps"], ["t", "time stamps: off, absolute, relative"], ["w", "wrap long lines"], ["c", "copy the chosen lines"],
    ["↑ ↓ PgUp PgDn Home", "move"], ["click, Shift+click a number", "choose a line, a range; the address links there"],
  ]],
];
const GOES = { j: "jobs", d: "deployments", f: "farm", b: "submit" };

export class Keys {
  #going = false;

  // `page()`: the page that is shown.
  constructor(dialog, page) {
    this.dialog = dialog;
    this.page = page;
    this.box = element("input", { type: "checkbox", id: "keys-on", onchange: () => localStorage.setItem("keys", this.box.checked ? "on" : "off") });
    this.box.checked = localStorage.getItem("keys") !== "off";
    fill(dialog,
      element("form", { method: "dialog" },
        element("div", { class: "what" }, element("h2", { id: "keys-title" }, "Keyboard"), element("span", { class: "gap" }), element("button", { class: "icon", "aria-label": "Close" }, "✕")),
        element("div", { class: "helps" }, HELP.map(([name, rows]) => element("section", {}, element("h3", {}, name),
          element("dl", {}, rows.map(([key, text]) => element("div", {}, element("dt", {}, key.split(", ").flatMap((each, index) => [index ? " " : "", element("kbd", {}, each)])), element("dd", {}, text))))))),
        element("label", { class: "flag", for: "keys-on" }, this.box, "Single keys do something")));
    addEventListener("keydown", (event) => this.#key(event));
  }

  help() {
    if (!this.dialog.open) this.dialog.showModal();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.dialog.open || event.defaultPrevented) return;
    if (event.target.closest?.("input, textarea, select")) return;
    if (localStorage.getItem("keys") === "off") return;
    const { key } = event;
    const going = this.#going;
    this.#going = false;
    if (going && GOES[key]) location.hash = `#/${GOES[key]}`;
    else if (key === "g") {
      this.#going = true;
      setTimeout(() => {
        this.#going = false;
      }, 1500);
    } else if (key === "?") this.help();
    else {
      const does = this.page()?.keys?.()[key];
      if (!does) return;
      does();
    }
    event.preventDefault();
  }
}
