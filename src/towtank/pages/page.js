"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  // Colours of Okabe and Ito, told apart by people with colour-blindness; lighter ones on dark ground.
  const colours = {
    light: ["#0b5f9e", "#a94400", "#00714f", "#93407a", "#6b5d00", "#39679b", "#7a3d00", "#444b52"],
    dark: ["#6cb6ee", "#f0a35e", "#4fd0a7", "#e3a0cd", "#e6d95c", "#a5c8f0", "#d8a47a", "#b9c0c7"],
  };
  const root = document.documentElement, button = document.getElementById("theme");
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (media.matches ? "dark" : "light")) === "dark";
  const themed = (layout, count, print) => {
    const style = getComputedStyle(root), night = dark() && !print;
    const text = print ? "#000" : style.getPropertyValue("--text"), line = print ? "#999" : style.getPropertyValue("--line");
    const axis = (own) => Object.assign({ gridcolor: line, zerolinecolor: line, linecolor: line }, own || {});
    // a phone shows one entry of the legend a line: the plot grows by them, so that its own height stays
    const narrow = window.innerWidth < 480, entries = layout.showlegend ? count : 0;
    return Object.assign({}, layout, {
      height: layout.height + (narrow ? 19 * Math.max(0, entries - 3) : 0),
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: text },
      // left to itself plotly writes on a light bar in a grey that is too close to it
      template: { data: { bar: [{ insidetextfont: { color: night ? "#14171a" : "#fff" } }] } },
      colorway: colours[night ? "dark" : "light"], margin: { t: layout.showlegend ? 64 : 12, r: 16, b: 48, l: 48 },
      xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
    });
  };
  const draw = (print) => {
    if (!window.Plotly) return;
    for (const [name, plot] of Object.entries(plots)) {
      const place = document.getElementById("plot-" + name);
      Plotly.react(place, plot.data, themed(plot.layout, plot.data.length, print), { responsive: true, displaylogo: false });
    }
    button.setAttribute("aria-pressed", String(dark()));
  };
  button.addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; draw(false); });
  media.addEventListener("change", () => draw(false));
  window.addEventListener("beforeprint", () => draw(true));
  window.addEventListener("afterprint", () => draw(false));
  draw(false);
})();
