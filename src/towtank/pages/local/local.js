"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const form = $("form"), root = document.documentElement;
  const media = window.matchMedia("(prefers-color-scheme: dark)");
  const WORDS = {
    "plans": "listing the legal plans", "memory and bounds": "memory and bounds", "simulation": "simulating",
    "finalists": "the best by the reference engine",
  };
  let search = null;

  const dark = () => (root.dataset.theme || (media.matches ? "dark" : "light")) === "dark";
  $("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    $("theme").setAttribute("aria-pressed", String(dark()));
  });

  const fields = () => Object.fromEntries([...new FormData(form)].map(([k, v]) => [k, v.trim()]).filter(([, v]) => v));
  // The inputs are in the address: a copy of it opens the same form.
  const address = () => ($("share").href = "/?" + new URLSearchParams(fields()));
  const share = () => history.replaceState(null, "", address());
  const given = new URLSearchParams(location.search);
  if ([...given].length) {
    for (const element of form.elements) if (element.name) element.value = given.get(element.name) ?? "";
    if (!form.elements.stack.value) form.elements.stack.value = "megatron-core";
  }
  address();
  form.addEventListener("change", share);

  const make = (tag, text, parent) => {
    const element = document.createElement(tag);
    if (text !== null) element.textContent = text;
    if (parent) parent.append(element);
    return element;
  };
  const clear = () => { $("faults").replaceChildren(); $("answer").replaceChildren(); };
  const complain = (faults) => {
    const list = make("ul", null, $("faults"));
    for (const fault of faults) make("li", fault, list);
  };
  const ask = async (method, address, body) => {
    const options = { method };
    if (body) Object.assign(options, { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } });
    let found;
    try {
      const response = await fetch(address, options);
      found = await response.json();
    } catch {
      found = { faults: ["towtank does not answer; is `towtank ui` still running?"] };
    }
    if (found.faults && !found.state) { complain(found.faults); return null; }
    return found;
  };

  const link = (address, text, parent) => {
    const element = make("a", text, parent);
    element.href = address;
    return element;
  };
  const show = (found) => {
    const answer = $("answer");
    make("h2", found.title, answer);
    for (const note of found.notes || []) make("p", note, answer);
    if (found.report) link(found.report, "Open the report", make("p", null, answer)).id = "report";
    if (!found.rows.length) return;
    const wide = make("div", null, answer);
    wide.className = "wide";
    wide.tabIndex = 0;
    wide.setAttribute("role", "region");
    wide.setAttribute("aria-label", found.title);
    const table = make("table", null, wide), head = make("tr", null, make("thead", null, table));
    // the last column is a plan, the widest: what is done with it comes before
    const last = found.columns.length - 1, links = found.reports ? ["report", "form"] : [];
    const heads = [...found.columns.slice(0, last), ...links, found.columns[last]];
    for (const name of heads) make("th", name, head).scope = "col";
    const body = make("tbody", null, table);
    found.rows.forEach((row, number) => {
      const line = make("tr", null, body);
      for (const cell of row) make("td", cell, line);
      if (!found.reports) return;
      const plan = line.lastChild;
      link(found.reports[number], `Report of plan ${number + 1}`, make("td", null, line));
      const use = make("button", `Use plan ${number + 1}`, make("td", null, line));
      use.type = "button";
      use.addEventListener("click", () => {
        form.elements.plan.value = found.plans[number];
        share();
        form.elements.plan.focus();
      });
      line.append(plan);
    });
    answer.focus();
  };

  const busy = (words) => {
    $("predict").disabled = $("tune").disabled = $("capacity").disabled = words !== null;
    $("progress").hidden = words === null;
    $("stage").textContent = words || "";
    $("bar").removeAttribute("value");
  };
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if ($("predict").disabled) return;
    share(); clear(); busy("predicting");
    const found = await ask("POST", "/api/predict", fields());
    busy(null);
    if (found) show(found);
  });

  const watch = async (report) => {
    for (;;) {
      const found = await ask("GET", "/api/tune/" + search);
      if (!found) return;
      if (found.state === "done") return show(Object.assign(report ? { report } : {}, found.result));
      if (found.state === "failed") return complain(found.faults);
      if (found.progress) {
        const { stage, done, of, best_s: best } = found.progress;
        $("stage").textContent = `${WORDS[stage] || stage}: ${done} of ${of}` + (best ? `, best ${best.toPrecision(4)} s` : "");
        if (of) { $("bar").max = of; $("bar").value = done; }
      }
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
  };
  const start = async (kind) => {
    share(); clear(); busy("starting the search");
    const started = await ask("POST", "/api/" + kind, fields());
    if (started) {
      search = started.search;
      $("stop").hidden = false;
      await watch(started.report);
      $("stop").hidden = true;
    }
    busy(null);
  };
  for (const kind of ["tune", "capacity"]) $(kind).addEventListener("click", () => start(kind));
  $("stop").addEventListener("click", () => ask("DELETE", "/api/tune/" + search));
  // nobody can ask for a search whose page has gone, and two at most are under way
  window.addEventListener("pagehide", () => {
    if (!$("stop").hidden) fetch("/api/tune/" + search, { method: "DELETE", keepalive: true });
  });
})();
