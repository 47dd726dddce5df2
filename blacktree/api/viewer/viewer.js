// The page: which part of it is shown, how the connection stands, light or dark.

import { FarmPage } from "/viewer/farm.js";
import { element } from "/viewer/format.js";
import { JobPage } from "/viewer/job.js";
import { JobsPage } from "/viewer/jobs.js";
import { Connection } from "/viewer/socket.js";
import { SubmitPage } from "/viewer/submit.js";

const main = document.getElementById("main");
const badge = document.getElementById("connection");
const connection = new Connection(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
let page = null;
let shown = "";

function route() {
  const parts = location.hash.replace(/^#\/?/, "").split("/").map(decodeURIComponent);
  const name = parts[0] || "jobs";
  const key = name === "job" ? `job/${parts[1]}` : name;
  const range = /^L(\d+)(?:-(\d+))?$/.exec(parts[2] ?? "");
  if (key === shown && !range) return;
  page?.close();
  shown = key;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "job" && parts[1]) {
    const place = range ? [Number(range[1]), Number(range[2] ?? range[1])] : null;
    page = new JobPage(connection, main, parts[1], place);
  } else if (name === "farm") page = new FarmPage(connection, main);
  else if (name === "submit") page = new SubmitPage(connection, main);
  else if (name === "jobs") page = new JobsPage(connection, main);
  else {
    page = null;
    main.replaceChildren(element("p", { class: "empty" }, "There is no such page. ", element("a", { href: "#/jobs" }, "All jobs")));
  }
  if (name !== "job") main.focus({ preventScroll: true });
}

connection.addEventListener("state", () => {
  const texts = { connecting: "connecting", open: "live", lost: "connection lost, trying again", unknown: "logged out" };
  badge.textContent = texts[connection.state];
  badge.className = `badge ${connection.state}`;
  if (connection.state === "unknown") {
    page?.close();
    page = null;
    shown = "";
    main.replaceChildren(element("p", { class: "empty" }, "This session has ended. ", element("a", { href: "/login" }, "Log in again"), "; what you looked at is still there."));
  }
});

const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const chosen = () => localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light");
const dress = () => document.documentElement.setAttribute("data-theme", chosen());
theme.addEventListener("click", () => {
  localStorage.setItem("theme", chosen() === "dark" ? "light" : "dark");
  dress();
});
dark.addEventListener("change", dress);
dress();

addEventListener("hashchange", route);
route();
