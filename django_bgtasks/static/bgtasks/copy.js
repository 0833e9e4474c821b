/* Buttons that copy the text of another element; shown only where the browser can. */
"use strict";

for (const button of document.querySelectorAll("[data-bgt-copy]")) {
  const source = document.getElementById(button.dataset.bgtCopy);
  if (!source || !navigator.clipboard) continue;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(source.textContent);
    const label = button.textContent;
    button.textContent = button.dataset.bgtCopied;
    setTimeout(() => {
      button.textContent = label;
    }, 2000);
  });
}
