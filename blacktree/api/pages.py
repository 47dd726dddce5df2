"""The few static pages of the door: what this is, and how to come in."""

import base64
import hashlib

POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

# What stands behind the `#` (a job, a line of its log) never reaches the farm: it is kept for the viewer (back.js).
# By a link of another site's page a browser comes without its SameSite=Strict cookie: whoever has one goes on.
_SCRIPT = """
const place = location.hash;
if (/^#\\/.{1,2000}$/.test(place)) {
  sessionStorage.setItem("back", place);
  localStorage.setItem("back", JSON.stringify([place, Date.now()]));
}
if (location.pathname === "/") {
  const known = (answer) => { if (answer.ok) location.replace("/login?again" + place); };
  // A browser drops what is under way when its network changes.
  const ask = (tries) => fetch("/api/v1/tokens/self").then(known, () => tries && setTimeout(ask, 400, tries - 1));
  ask(5);
}
"""
_DIGEST = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
# This script and no other.
LOGIN_POLICY = f"{POLICY}; script-src 'sha256-{_DIGEST}'; connect-src 'self'"

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
* { box-sizing: border-box }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1rem }
body { background: light-dark(#f4f6f3, #0e1311); color: light-dark(#17201b, #e4eae6) }
main { width: min(27rem, 100%); padding: 1.8rem; border-radius: 12px }
main { background: light-dark(#fff, #151b18); border: 1px solid light-dark(#dce1db, #2a342f) }
h1 { display: flex; gap: .6rem; align-items: center; margin: 0 0 1rem; font-size: 1.4rem }
p { margin: 0 0 1rem }
label { display: grid; gap: .3rem; font-weight: 500 }
input, button { font: inherit; width: 100%; min-height: 2.6rem; padding: .2rem .8rem; border-radius: 7px }
input { color: inherit; background: none; border: 1px solid light-dark(#8d9891, #5e6c65) }
button { margin-top: .9rem; border: 0; font-weight: 600; cursor: pointer }
button { background: light-dark(#17693b, #5fcb8d); color: light-dark(#fff, #07130c) }
:focus-visible { outline: 2px solid light-dark(#0b5fd0, #7db4ff); outline-offset: 2px }
.bad { color: light-dark(#b0241d, #ff8f86) }
.aside { margin: 1.2rem 0 0; font-size: .9rem; color: light-dark(#55605a, #9aa8a0) }
code, input { font-family: ui-monospace, monospace }
"""

_TREE = (
    '<svg viewBox="0 0 24 24" width="28" height="28" aria-hidden="true">'
    '<path d="M12 1 5 9h3l-5 6h4l-5 6h9v2h2v-2h9l-5-6h4l-5-6h3z" fill="#2f7d4f"/></svg>'
)


def _login(note: str) -> bytes:
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Log in · Blacktree</title>
<style>{_STYLE}</style>
<script>{_SCRIPT}</script>
</head>
<body>
<main>
<h1>{_TREE}Blacktree</h1>
{note}
<form method="post" action="/login">
<label>Token <input name="token" type="password" autocomplete="off" autofocus required></label>
<button>Come in</button>
</form>
<p class="aside">On the farm's own machine, <code>blacktree token link</code> prints a link that lets this browser in;
the farm's own token is in the file that it named when it started (<code>STATE/token</code>).</p>
</main>
</body>
</html>
""".encode()


LOGIN = _login("<p>This farm asks who you are.</p>")
LOGIN_FAILED = _login('<p class="bad" role="alert">That did not work: a login link works once, for ten minutes.</p>')
