// Who reads this page. What their token may not ask for is not offered (base.css); the farm decides in any case.

import { element, fill, plain } from "./format.js";
import { read } from "./read.js";

class Me extends EventTarget {
  token = null;
  chip = element("span", { class: "me", hidden: true });

  // Asked anew with every connection: the next one may be somebody else's.
  ask(connection) {
    connection.addEventListener("state", async () => {
      if (connection.state !== "open") return;
      try {
        this.#take((await read("/api/v1/tokens/self")).value);
      } catch {
        // The next connection asks.
      }
    });
  }

  #take(token) {
    this.token = token;
    document.body.dataset.may = token.may.join(" ");
    const scope = token.repositories.length ? `, for ${token.repositories.map(plain).join(", ")}` : "";
    fill(this.chip, token.id === "farm" ? "" : element("b", {}, plain(token.name)), element("span", {}, token.role));
    this.chip.title = `Token ${plain(token.name)}: role ${token.role}${scope}`;
    this.chip.hidden = false;
    this.dispatchEvent(new Event("known"));
  }
}

export const me = new Me();
