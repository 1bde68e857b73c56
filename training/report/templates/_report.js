// The page's only script. It shows what was written when the page was made, and computes nothing.
(() => {
  const { points, start, one_in } = JSON.parse(document.getElementById("thresholds-data").textContent);
  const slider = document.getElementById("threshold");
  const rarity = document.getElementById("one-in");
  if (!points.length) return;

  const place = (name, at) => {
    for (const mark of document.querySelectorAll(`[data-mark="${name}"]`)) {
      mark.style.display = at ? "" : "none";
      if (!at) continue;
      if (at.length === 2) { mark.setAttribute("cx", at[0]); mark.setAttribute("cy", at[1]); }
      else { mark.setAttribute("x1", at[0]); mark.setAttribute("x2", at[0]); }
    }
  };

  const show = (keep) => {
    const point = points[slider.value];
    const traffic = point.traffic[rarity.selectedIndex];
    const [hits, missed, alarms, passed] = point.cells.map((count) => count.toLocaleString("en"));
    const texts = {
      threshold: point.shown, name: point.name && ` (${point.name})`, fpr: point.fpr, recall: point.recall,
      ...traffic, hits, missed, alarms, passed,
    };
    for (const [name, text] of Object.entries(texts)) {
      for (const element of document.querySelectorAll(`[data-show="${name}"]`)) element.textContent = text;
    }
    for (const button of document.querySelectorAll("[data-index]")) {
      button.setAttribute("aria-pressed", button.dataset.index === slider.value);
    }
    slider.setAttribute("aria-valuetext", `threshold ${point.shown}`);
    place("roc", point.places.roc);
    place("scores", point.places.scores);
    if (keep) {
      const state = `#threshold=${point.threshold}&one-in=${one_in[rarity.selectedIndex]}`;
      try { history.replaceState(null, "", state); } catch { /* a viewer that allows no address of its own */ }
    }
  };

  // An address that ends in #threshold=0.9&one-in=1000 opens the page there, at the nearest threshold that it knows.
  const open = () => {
    const asked = new URLSearchParams(location.hash.slice(1));
    const threshold = parseFloat(asked.get("threshold"));
    if (Number.isNaN(threshold)) return;
    const far = points.map((point) => Math.abs(point.threshold - threshold));
    slider.value = far.indexOf(Math.min(...far));
    const rare = one_in.indexOf(Number(asked.get("one-in")));
    if (rare >= 0) rarity.selectedIndex = rare;
  };

  slider.max = points.length - 1;
  slider.value = start;
  open();
  document.querySelector(".chooser").hidden = false;
  document.body.classList.add("chosen");
  show(false);
  slider.addEventListener("input", () => show(true));
  rarity.addEventListener("change", () => show(true));
  for (const button of document.querySelectorAll("[data-index]")) {
    button.addEventListener("click", () => { slider.value = button.dataset.index; show(true); });
  }
  addEventListener("hashchange", () => { open(); show(false); });
})();
// A printed page can unfold nothing: all is open but the long texts.
let unfolded = [];
addEventListener("beforeprint", () => {
  unfolded = [...document.querySelectorAll("details:not(.fold):not([open])")];
  for (const part of unfolded) part.open = true;
});
addEventListener("afterprint", () => { for (const part of unfolded) part.open = false; });
