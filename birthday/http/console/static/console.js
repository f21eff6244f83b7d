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
