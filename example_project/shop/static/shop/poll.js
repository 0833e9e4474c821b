// Fetches the page again every second and replaces its data-live part, until
// nothing in it is data-pending. Without JavaScript, reloading does the same.
async function poll() {
  const old = document.querySelector("[data-live]");
  if (!old?.querySelector("[data-pending]")) return;
  try {
    const text = await (await fetch(location.href)).text();
    const fresh = new DOMParser().parseFromString(text, "text/html").querySelector("[data-live]");
    if (fresh) old.replaceWith(fresh);
  } catch {} // The site is restarting, perhaps.
  setTimeout(poll, 1000);
}
setTimeout(poll, 1000);
