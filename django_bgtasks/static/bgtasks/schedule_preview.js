// Asks the server when a schedule would be due, while its form is filled in.
// The page is complete without it: the server renders the same after a save.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const preview = document.querySelector("[data-bgt-preview]");
  const when = document.getElementById("id_expression");
  const zone = document.getElementById("id_time_zone");
  if (!preview || !when || !zone) {
    return;
  }
  const part = (name) => preview.querySelector(`[data-bgt-part="${name}"]`);
  const list = (name, texts) => {
    part(name).replaceChildren(
      ...texts.map((text) => {
        const item = document.createElement("li");
        item.textContent = text;
        return item;
      }),
    );
  };
  let asked = 0;
  let timer;
  const ask = async () => {
    const mine = ++asked;
    const query = new URLSearchParams({ expression: when.value, time_zone: zone.value });
    let data;
    try {
      const answer = await fetch(`${preview.dataset.bgtPreview}?${query}`, {
        credentials: "same-origin",
        headers: { Accept: "application/json" },
      });
      if (!answer.ok) {
        return;
      }
      data = await answer.json();
    } catch {
      return; // The next key stroke asks again.
    }
    if (mine !== asked) {
      return;
    }
    part("error").textContent = data.error;
    part("sentence").textContent = data.sentence;
    list("runs", data.runs);
    list("notes", data.notes);
  };
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(ask, 250);
  };
  when.addEventListener("input", soon);
  zone.addEventListener("change", soon);
  if (when.value) {
    soon();
  }
});
