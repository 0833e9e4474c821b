/* Buttons that copy the text of another element; shown only where the browser can. */
"use strict";

(() => {
  if (!navigator.clipboard) return;

  const show = (root) => {
    for (const button of root.querySelectorAll("[data-bgt-copy]")) {
      button.hidden = !document.getElementById(button.dataset.bgtCopy);
    }
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-bgt-copy]");
    const source = button && document.getElementById(button.dataset.bgtCopy);
    if (!source) return;
    await navigator.clipboard.writeText(source.textContent);
    const label = button.textContent;
    if (label === button.dataset.bgtCopied) return;
    button.textContent = button.dataset.bgtCopied;
    setTimeout(() => {
      button.textContent = label;
    }, 2000);
  });

  // What live.js puts in has buttons of its own.
  document.addEventListener("bgt-swapped", (event) => show(event.target));
  show(document);
})();
