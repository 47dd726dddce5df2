// A browser drops what it is loading when its network changes (a container starts, a laptop moves): a page of which a
// part did not come loads itself again. It is written into the page, so that at least this part is there.
{
  const QUIET_TRIES = 4;
  const tried = Number(sessionStorage.getItem("loads") ?? 0);
  let failed = false;
  const say = () => {
    const link = Object.assign(document.createElement("a"), { href: location.href, textContent: "Load it again", className: "button main" });
    link.addEventListener("click", () => location.reload());
    setTimeout(() => location.reload(), 10_000);
    const said = Object.assign(document.createElement("div"), { className: "empty", role: "alert" });
    said.append(Object.assign(document.createElement("h1"), { textContent: "This page did not come whole" }), link);
    document.getElementById("main").replaceChildren(said);
  };
  addEventListener("error", ({ target }) => {
    if (failed || !(target instanceof HTMLScriptElement || target?.rel === "stylesheet")) return;
    failed = true;
    sessionStorage.setItem("loads", tried + 1);
    if (tried < QUIET_TRIES) setTimeout(() => location.reload(), 300 * 2 ** tried);
    else if (document.readyState === "loading") addEventListener("DOMContentLoaded", say);
    else say();
  }, true);
  addEventListener("load", () => {
    if (!failed) sessionStorage.removeItem("loads");
  });
}
