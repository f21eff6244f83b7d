// What makes an open page pleasant. Every page works without it.
(() => {
  "use strict";
  const EVERY = 5000;

  // Elements with an id and data-live are replaced while the page is visible.
  const live = () => [...document.querySelectorAll("[data-live][id]")];

  function isUsed(element) {
    const selection = document.getSelection();
    const selects = selection && !selection.isCollapsed && element.contains(selection.anchorNode);
    return selects || element.contains(document.activeElement);
  }

  // A table that is wider than the screen scrolls by keys as well. Not every browser sees to that itself.
  function reach() {
    for (const element of document.querySelectorAll(".scroll, .card, pre, .text table")) {
      if (element.scrollWidth > element.clientWidth) element.tabIndex = 0;
      else element.removeAttribute("tabindex");
    }
  }

  addEventListener("resize", reach);
  reach();

  async function refresh() {
    const response = await fetch(location.href, { headers: { "X-Refresh": "live" } });
    if (response.redirected || response.status === 401) {
      // The session has ended: the server asks for a key.
      location.reload();
      return;
    }
    if (!response.ok) throw new Error(String(response.status));
    const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const element of live()) {
      const replacement = fresh.getElementById(element.id);
      if (replacement && !isUsed(element)) element.replaceWith(document.adoptNode(replacement));
    }
    reach();
  }

  async function keepFresh() {
    if (document.visibilityState === "visible" && live().length) {
      try {
        await refresh();
        document.documentElement.removeAttribute("data-stale");
      } catch {
        // The server is away: what is shown is marked as old, and tried again.
        document.documentElement.setAttribute("data-stale", "");
      }
    }
    setTimeout(keepFresh, EVERY);
  }

  if (live().length) setTimeout(keepFresh, EVERY);

  // A form with data-into shows its answer there while it comes, so that what was chosen in the form stays.
  async function send(form, into, submitter) {
    const response = await fetch(form.action, { method: "POST", body: new FormData(form, submitter) });
    if (response.redirected || response.status === 401) {
      location.reload();
      return;
    }
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = "", part = {}; !part.done; ) {
      part = await reader.read();
      text += part.value ?? "";
      const page = new DOMParser().parseFromString(text, "text/html");
      const shown = page.querySelector(".progress") ?? page.getElementById("main");
      if (shown) into.replaceChildren(document.adoptNode(shown));
    }
    into.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    const into = form.dataset.into && document.getElementById(form.dataset.into);
    if (!into) return;
    event.preventDefault();
    const button = event.submitter;
    if (button) button.disabled = true;
    into.textContent = "Sending the file…";
    try {
      await send(form, into, button);
    } catch {
      into.textContent = "The answer broke off. What was done until then stays done: check the file again.";
    }
    if (button) button.disabled = false;
  });

  // A form with data-at-once fills its frame without a click.
  for (const form of document.querySelectorAll("form[data-at-once]")) form.submit();

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]");
    if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "/") {
      const search = document.getElementById("search");
      if (search) {
        event.preventDefault();
        search.focus();
        search.select();
      }
    } else if (event.key === "?") {
      event.preventDefault();
      document.getElementById("keys").showModal();
    }
  });
})();
