// Where a reader was before they had to log in: noted here when a session ends, and by the login page for a link.

const FRESH = 600_000; // milliseconds; as long as a login link is good

export function note() {
  sessionStorage.setItem("back", location.hash);
}

// It is taken once. A login link may have opened another tab than the one where the way was lost: that one's is told, too.
export function taken() {
  const own = sessionStorage.getItem("back");
  const others = localStorage.getItem("back");
  sessionStorage.removeItem("back");
  localStorage.removeItem("back");
  if (own) return own;
  try {
    const [place, time] = JSON.parse(others);
    return Date.now() - time < FRESH ? place : "";
  } catch {
    return "";
  }
}
