/*
 * Live regions: every few seconds the page is asked for what has changed of them.
 *
 * Without this script the page is complete, and its link "Refresh" does the same.
 */
"use strict";

(() => {
  const control = document.querySelector("[data-bgt-refresh]");
  if (!control) return;
  const note = document.querySelector("[data-bgt-note]");
  const KEY = "bgtasks.refresh";
  const IDLE = 30 * 60 * 1000;
  const LONGEST = 60;
  const policy = window.trustedTypes
    ? window.trustedTypes.createPolicy("bgtasks", { createHTML: (text) => text })
    : { createHTML: (text) => text };
  let timer = null;
  let etag = null;
  let pause = 0;
  let active = Date.now();

  const say = (text) => {
    if (note && note.textContent !== text) note.textContent = text;
  };

  // What a reader is in the middle of stays as it is.
  const busy = (region) => {
    if (region.contains(document.activeElement)) return true;
    const selection = document.getSelection();
    return Boolean(
      selection && !selection.isCollapsed && region.contains(selection.anchorNode),
    );
  };

  const swap = (text) => {
    const holder = document.createElement("template");
    holder.innerHTML = policy.createHTML(text);
    for (const fresh of holder.content.querySelectorAll("[data-bgt-live]")) {
      const name = fresh.dataset.bgtLive;
      const old = document.querySelector(`[data-bgt-live="${CSS.escape(name)}"]`);
      if (!old || busy(old)) continue;
      for (const open of old.querySelectorAll("details[open][id]")) {
        const same = fresh.querySelector(`#${CSS.escape(open.id)}`);
        if (same) same.open = true;
      }
      if (old.querySelector("details[open]:not([id])")) continue;
      if (old.innerHTML === fresh.innerHTML) continue;
      old.replaceChildren(...fresh.childNodes);
      old.dispatchEvent(new CustomEvent("bgt-swapped", { bubbles: true }));
    }
  };

  const poll = async () => {
    if (document.hidden) return;
    if (Date.now() - active > IDLE) {
      say(control.dataset.bgtIdle);
      return;
    }
    try {
      const headers = { "X-Requested-With": "bgt-live" };
      if (etag) headers["If-None-Match"] = etag;
      const answer = await fetch(location.href, { headers, redirect: "manual", cache: "no-store" });
      if (answer.type === "opaqueredirect" || answer.status === 403) {
        say(control.dataset.bgtSignedOut);
        return;
      }
      if (answer.status !== 304) {
        if (!answer.ok) throw new Error(String(answer.status));
        etag = answer.headers.get("ETag");
        swap(await answer.text());
      }
      pause = seconds();
      say("");
    } catch {
      pause = Math.min(Math.max(pause, 1) * 2, LONGEST);
      say(control.dataset.bgtFailed);
    }
    plan();
  };

  const seconds = () => Number(control.value) || 0;

  const plan = () => {
    clearTimeout(timer);
    if (seconds()) timer = setTimeout(poll, (pause || seconds()) * 1000);
  };

  try {
    const kept = localStorage.getItem(KEY);
    if (kept !== null && [...control.options].some((option) => option.value === kept)) {
      control.value = kept;
    }
  } catch {
    // Storage may be forbidden; the choice is not remembered then.
  }
  control.addEventListener("change", () => {
    try {
      localStorage.setItem(KEY, control.value);
    } catch {
      // As above.
    }
    pause = seconds();
    say("");
    plan();
  });
  for (const event of ["keydown", "pointerdown", "pointermove"]) {
    document.addEventListener(
      event,
      () => {
        const slept = Date.now() - active > IDLE;
        active = Date.now();
        if (slept) plan();
      },
      { passive: true },
    );
  }
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) poll();
  });
  for (const element of document.querySelectorAll("[data-bgt-script]")) element.hidden = false;
  plan();
})();
