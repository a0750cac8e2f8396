// The pages of runs: one is shown at a time, by the address' hash.

function router() {
  const pages = [...document.querySelectorAll(".page")];
  const links = [...document.querySelectorAll(".bar a")];
  const menu = document.querySelector(".runlist");
  const tops = new Map();  // where each page was left
  let here = null;
  let followed = true;
  history.scrollRestoration = "manual";

  function show() {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = (id && document.getElementById(id)) || pages[0];
    const page = target.closest(".page") || pages[0];
    const first = here === null;
    closePicture();
    for (const other of pages) other.classList.toggle("here", other === page);
    for (const link of links) {
      if (link.hash === "#" + page.id) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (menu) menu.open = false;
    here = page;
    if (target !== page && page.contains(target)) target.scrollIntoView();
    else scrollTo(0, followed ? 0 : tops.get(page.id) || 0);
    followed = false;
    if (!first) page.querySelector("h1, h2").focus({ preventScroll: true });
  }

  document.addEventListener("click", (event) => {
    if (event.target.closest("a[href^='#']")) followed = true;
    if (menu && !menu.contains(event.target)) menu.open = false;
  });
  addEventListener("scroll", () => { if (here) tops.set(here.id, scrollY); }, { passive: true });
  addEventListener("hashchange", show);
  show();
}

document.addEventListener("DOMContentLoaded", router);
