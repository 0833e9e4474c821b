// Asks the server when a schedule would be due, while its form is filled in.
// The page is complete without it: the server renders the same after a save.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
  const preview = document.querySelector("[data-bgt-preview]");
  const when = document.getElementById("id_expression");
  const zone = document.getElementById("id_time_zone");
  const bounds = ["start_at_0", "start_at_1", "end_at_0", "end_at_1", "max_runs"]
    .map((name) => document.getElementById(`id_${name}`))
    .filter((field) => field);
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
    const query = new URLSearchParams({ runs: preview.dataset.bgtRuns });
    for (const field of [when, zone, ...bounds]) {
      query.set(field.name, field.value);
    }
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
  for (const field of bounds) {
    field.addEventListener("input", soon);
    // The calendar and the clock of the admin tell of their clicks by this one alone.
    field.addEventListener("change", soon);
    field.addEventListener("focus", soon);
  }
  if (when.value) {
    soon();
  }
});
