/*
 * The bar of {% task_progress %} asks how far its task is, until that has ended.
 *
 * It tells the page by events that bubble: "bgtasks:progress" with each news,
 * "bgtasks:finished" at the end, whose preventDefault() keeps the page from being left or
 * loaded again, and "bgtasks:lost" where there is nothing to follow any more. The detail
 * of the first two is the answer of the server.
 *
 * Without this script the bar stands still, and its link loads the page again.
 */
"use strict";

if (!customElements.get("bgtasks-progress")) {
  // Milliseconds: the first pause, and the longest while it moves, stands still, can't be asked.
  const FIRST = 1000;
  const MOVING = 5000;
  const STILL = 15000;
  const BROKEN = 60000;
  const TIMEOUT = 30000;

  customElements.define(
    "bgtasks-progress",
    class extends HTMLElement {
      #timer = null;
      #pause = FIRST;
      #etag = null;
      #asking = false;
      #slept = false;

      #woken = () => {
        if (this.#slept && !document.hidden) this.#ask();
      };

      connectedCallback() {
        if (!this.dataset.url) return;
        this.#offerRefresh(false);
        document.addEventListener("visibilitychange", this.#woken);
        this.#plan();
      }

      disconnectedCallback() {
        clearTimeout(this.#timer);
        document.removeEventListener("visibilitychange", this.#woken);
      }

      #part(name) {
        return this.querySelector(`[data-part="${name}"]`);
      }

      #offerRefresh(offered) {
        const link = this.#part("refresh");
        if (link) link.hidden = !offered;
      }

      #plan() {
        clearTimeout(this.#timer);
        // Not all at the same moment, when many wait for one thing.
        const pause = this.#pause * (0.9 + 0.2 * Math.random());
        this.#timer = setTimeout(() => this.#ask(), pause);
      }

      async #ask() {
        // Nobody looks: it goes on when somebody does.
        this.#slept = document.hidden;
        if (this.#slept || this.#asking) return;
        this.#asking = true;
        try {
          if (await this.#asked()) return;
        } catch {
          this.#pause = Math.min(this.#pause * 2, BROKEN);
        } finally {
          this.#asking = false;
        }
        if (this.isConnected) this.#plan();
      }

      // Whether that was the last time.
      async #asked() {
        const answer = await fetch(this.dataset.url, {
          cache: "no-store",
          headers: this.#etag ? { "If-None-Match": this.#etag } : {},
          redirect: "manual",
          signal: AbortSignal.timeout(TIMEOUT),
        });
        if (answer.type === "opaqueredirect" || [401, 403, 404, 410].includes(answer.status)) {
          await this.#lose(answer);
          return true;
        }
        if (answer.status === 304) {
          this.#pause = Math.min(this.#pause * 1.5, STILL);
          return false;
        }
        if (!answer.ok) throw new Error(String(answer.status));
        const said = await answer.json();
        this.#etag = answer.headers.get("ETag");
        this.#pause = Math.min(this.#pause * 1.2, MOVING);
        this.#show(said);
        if (said.finished) this.#end(said);
        return said.finished;
      }

      #show({ state, text, detail, progress, ...rest }) {
        this.dataset.state = state;
        this.#write(text, detail);
        const bar = this.querySelector('[role="progressbar"]');
        if (progress.fraction === null) {
          bar.removeAttribute("aria-valuenow");
          this.#part("bar").setAttribute("width", "0");
        } else {
          const percent = String(Math.round(progress.fraction * 100));
          bar.setAttribute("aria-valuenow", percent);
          this.#part("bar").setAttribute("width", percent);
        }
        this.#tell("progress", { state, text, detail, progress, ...rest });
      }

      #write(text, detail) {
        // A screen reader reads the state aloud when it changes, and not each figure.
        for (const [name, value] of Object.entries({ text, detail })) {
          const part = this.#part(name);
          if (part.textContent !== value) part.textContent = value;
        }
        this.querySelector('[role="progressbar"]').setAttribute(
          "aria-valuetext",
          detail ? `${text}: ${detail}` : text,
        );
      }

      #end(said) {
        if (!this.#tell("finished", said)) return;
        const next = said.failed ? null : this.dataset.next;
        const address = next && new URL(next, location.href);
        if (address && address.origin === location.origin) location.assign(address);
        else if ("reload" in this.dataset) location.reload();
      }

      async #lose(answer) {
        let text = this.dataset.lost;
        try {
          text = (await answer.json()).text || text;
        } catch {
          // A page of the project's own, or none.
        }
        this.dataset.state = "LOST";
        this.#write(text, "");
        this.#offerRefresh(true);
        this.#tell("lost", { status: answer.status });
      }

      #tell(name, detail) {
        const event = new CustomEvent(`bgtasks:${name}`, {
          bubbles: true,
          cancelable: name === "finished",
          detail,
        });
        return this.dispatchEvent(event);
      }
    },
  );
}
