// The page: which part of it is shown, how the connection stands, light or dark.

import { note, taken } from "./back.js";
import { DeploymentPage } from "./deployment.js";
import { DeploymentsPage } from "./deployments.js";
import { FarmPage } from "./farm.js";
import { announce, element, fill, tick, toast } from "./format.js";
import { JobPage } from "./job.js";
import { JobsPage } from "./jobs.js";
import { Keys } from "./keys.js";
import { me } from "./me.js";
import { Connection } from "./socket.js";
import { SubmitPage } from "./submit.js";

const main = document.getElementById("main");
const badge = document.getElementById("connection");
const connection = new Connection(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
badge.before(me.chip);
me.ask(connection);
const PARENTS = { job: "jobs", deployment: "deployments" };
let page = null;
let shown = "";

const open = {
  jobs: (parts, query) => new JobsPage(connection, main, query),
  farm: () => new FarmPage(connection, main),
  submit: () => new SubmitPage(connection, main),
  deployments: () => new DeploymentsPage(connection, main),
  job: ([, id], query, place) => id && new JobPage(connection, main, id, place),
  deployment: ([, name], query, place) => name && new DeploymentPage(connection, main, name, place),
};

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").map(decoded);
  const name = parts[0] || "jobs";
  const key = name in PARENTS ? `${name}/${parts[1]}` : name;
  const range = /^L(\d{1,15})(?:-(\d{1,15}))?$/.exec(parts[2] ?? "");
  const place = range ? [Number(range[1]), Math.max(Number(range[1]), Number(range[2] ?? range[1]))] : null;
  if (key === shown) {
    if (place) page?.place?.(place);
    return;
  }
  page?.close();
  shown = key;
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.page === (PARENTS[name] ?? name)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.dataset.page = name;
  main.scrollTop = 0;
  page = Object.hasOwn(open, name) ? open[name](parts, new URLSearchParams(query), place) : null;
  if (!page) {
    document.title = "Blacktree";
    fill(main, element("div", { class: "empty" }, element("h1", {}, "There is no such page"), element("a", { href: "#/jobs" }, "All jobs")));
  }
  if (!main.contains(document.activeElement)) main.focus({ preventScroll: true });
}

const TEXTS = { connecting: "connecting", open: "live", lost: "connection lost, trying again", unknown: "logged out" };
let lost = false;

connection.addEventListener("state", () => {
  const { state } = connection;
  badge.textContent = TEXTS[state];
  badge.className = `link ${state}`;
  // Pages with a log say by themselves from where it goes on.
  if (state === "open" && lost && !(main.dataset.page in PARENTS)) toast("Connected again; what is shown is up to date");
  if (state === "open" && lost) announce("Connected again");
  if (state === "lost") lost = true;
  if (state === "open") lost = false;
  if (state === "unknown") leave();
});

// The session has ended or was revoked. Whoever logs in again comes back to where they were.
function leave() {
  note();
  page?.close();
  page = null;
  shown = "";
  document.title = "Logged out · Blacktree";
  fill(main, element("div", { class: "empty", role: "alert" }, element("h1", {}, "This session has ended"),
    element("p", {}, "It is over, or its token was revoked. What was begun goes on without you."),
    element("a", { href: "/login", class: "button main" }, "Log in again")));
}

const theme = document.getElementById("theme");
const dark = matchMedia("(prefers-color-scheme: dark)");
const dress = () => {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.setAttribute("data-theme", chosen);
};
theme.addEventListener("click", () => {
  const now = localStorage.getItem("theme") ?? (dark.matches ? "dark" : "light");
  localStorage.setItem("theme", now === "dark" ? "light" : "dark");
  dress();
});
dress();

const keys = new Keys(document.getElementById("keys"), () => page);
document.getElementById("help").addEventListener("click", () => keys.help());
setInterval(() => {
  tick();
  page?.tick?.();
}, 1000);

const back = taken();
if (back && !location.hash) history.replaceState(null, "", back);
addEventListener("hashchange", route);
route();
