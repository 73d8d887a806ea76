/* Keeps the page live: patches cells from the event stream, adds calls, draws the chart. It decides nothing. */
"use strict";
(() => {
  const CALLS_MAX = 100, BACK_MS = 5000, POINTS_MAX = 2000;
  const find = (selector, root = document) => root.querySelector(selector);
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const say = (node, text) => { if (node && node.textContent !== text) node.textContent = text; };
  let chart = null, chosen = null;

  /* times, in the viewer's zone */
  const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
  const minute = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
  const day = new Intl.DateTimeFormat(undefined, { month: "short", day: "numeric" });
  const localise = (root) => all("time[datetime]", root).forEach((each) => {
    const moment = new Date(each.dateTime), whole = moment.toLocaleString();
    const today = moment.toDateString() === new Date().toDateString();
    say(each, each.hasAttribute("data-whole") ? whole : today ? clock.format(moment) : `${day.format(moment)} ${minute.format(moment)}`);
    each.title = whole;
  });

  /* the search: what is left empty is not in its address, and times are the viewer's */
  const local = (moment) => new Date(moment - moment.getTimezoneOffset() * 60000).toISOString().slice(0, 16);
  const search = (form) => {
    all("[data-zone]", form).forEach((each) => each.remove());
    all("[data-at]", form).forEach((each) => { each.value = local(new Date(each.dataset.at)); });
    form.addEventListener("formdata", ({ formData }) => {
      for (const [name, value] of [...formData]) {
        if (!value.trim()) formData.delete(name);
        else if (form.elements[name].type === "datetime-local") formData.set(name, new Date(value).toISOString());
      }
    });
  };

  /* the market */
  const patch = (root, cells) => {
    for (const name of ["price", "beside", "change", "busy", "equilibrium", "earning"]) all(`[data-cell="${name}"]`, root).forEach((each) => say(each, cells[name]));
    all('[data-cell="exact"]', root).forEach((each) => { each.title = cells.exact; });
    all('[data-cell="state"]', root).forEach((each) => { each.className = `badge ${cells.state}`; say(each.lastElementChild, cells.state); });
  };
  const patchRow = (row, cells) => {
    patch(row, cells);
    row.className = cells.state;
    const bar = find(".load .bar", row);
    bar.classList.toggle("high", cells.load >= 0.85);
    find(".fill", bar).setAttribute("width", `${cells.load * 100}%`);
    find(".line", row).setAttribute("d", cells.spark);
    find(".area", row).setAttribute("d", cells.spark && `${cells.spark}V28H${parseFloat(cells.spark.slice(1))}Z`);
  };
  const patchPanel = (cells) => {
    const panel = find(`#endpoint .panel[data-number="${cells.n}"]`);
    if (!panel) return;
    patch(panel, cells);
    if (cells.band !== null) find(".band .now", panel)?.setAttribute("cx", `${cells.band * 100}%`);
  };
  const mark = () => {
    chosen = find("#endpoint .panel")?.dataset.number ?? null;
    all("#board tr[aria-current]").forEach((row) => row.removeAttribute("aria-current"));
    if (chosen) find(`#row-${chosen}`)?.setAttribute("aria-current", "true");
  };
  const piece = async (url) => {
    const answer = await fetch(url, { headers: { "HX-Request": "true" } });
    return answer.ok ? answer.text() : null;
  };
  const renewBoard = async () => {
    const html = await piece("/console/board");
    if (html === null) return;
    find("#board").outerHTML = html;
    htmx.process(find("#board"));
    const first = find("#board [data-endpoint]");
    const panel = !chosen && first ? await piece(first.href) : null;
    if (panel !== null) find("#endpoint").innerHTML = panel;
    mark();
  };
  const last = new Map();
  const onBoard = (news) => {
    say(find("#ready"), news.ready);
    say(find("#in-flight"), String(news.in_flight));
    say(find("#version"), `v${news.version}`);
    for (const cells of news.rows) {
      last.set(String(cells.n), cells);
      const row = document.getElementById(`row-${cells.n}`);
      if (row) patchRow(row, cells);
      patchPanel(cells);
    }
    if (find("#board").dataset.members !== news.members) renewBoard();
    if (chosen && last.has(chosen)) extend(news.at, last.get(chosen).at);
  };

  /* calls, newest first; ids are in order of time */
  const onCalls = (html) => {
    const list = find("#calls"), known = list.childElementCount > 0, box = document.createElement("template");
    box.innerHTML = html;
    for (const fresh of all(".call", box.content)) {
      if (document.getElementById(fresh.id)) continue;
      const next = [...list.children].find((each) => each.dataset.id < fresh.dataset.id);
      localise(fresh);
      fresh.classList.toggle("fresh", known);
      list.insertBefore(fresh, next ?? null);
      htmx.process(fresh);
    }
    while (list.childElementCount > CALLS_MAX) list.lastElementChild.remove();
  };

  /* the chart of the chosen endpoint */
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const money = (value) => value === null ? "" : `$${value >= 100 ? value.toFixed(2) : Number(value.toPrecision(4))}`;
  const options = (box) => {
    const grid = { stroke: colour("--line"), width: 1 }, font = "11px system-ui, sans-serif";
    const axis = { stroke: colour("--muted"), font, ticks: { show: false }, grid };
    return {
      width: box.clientWidth, height: box.clientHeight - 22, padding: [8, 4, 0, 4],
      cursor: { y: false, points: { size: 6 } },
      scales: {
        price: { range: (_, low, high) => { const room = Math.max((high - low) * 0.12, high * 0.01, 1e-9); return [Math.max(low - room, 0), high + room]; } },
        load: { range: (_, low, high) => [0, Math.max(1, high)] },
      },
      axes: [
        { ...axis, grid: { show: false }, space: 64, size: 22, values: (_, ticks) => ticks.map((each) => minute.format(new Date(each * 1000))) },
        { ...axis, scale: "price", size: 58, values: (_, ticks) => ticks.map(money) },
        { ...axis, scale: "load", side: 1, size: 38, grid: { show: false }, values: (_, ticks) => ticks.map((each) => `${Math.round(each * 100)}%`) },
      ],
      series: [
        { label: "at", value: (_, at) => at === null ? "" : clock.format(new Date(at * 1000)) },
        { label: "load", scale: "load", fill: colour("--load-soft"), stroke: "transparent", width: 0, points: { show: false },
          paths: uPlot.paths.stepped({ align: 1 }), value: (_, load) => load === null ? "" : `${Math.round(load * 100)}%` },
        { label: "price", scale: "price", stroke: colour("--accent"), width: 1.6, points: { show: false },
          paths: uPlot.paths.stepped({ align: 1 }), value: (_, price) => money(price) },
      ],
    };
  };
  const draw = async () => {
    const box = find("#endpoint .chart");
    chart?.plot.destroy();
    chart = null;
    mark();
    if (!box) return;
    const minutes = Number(find('.windows [aria-pressed="true"]')?.dataset.minutes ?? 10);
    const answer = await fetch(`${box.dataset.series}?minutes=${minutes}`);
    if (!answer.ok || !box.isConnected) return;
    const told = await answer.json(), data = [told.at, told.load, told.price];
    chart?.plot.destroy();
    chart = { box, data, seconds: minutes * 60, plot: new uPlot(options(box), data, box) };
  };
  const extend = (at, [load, price]) => {
    if (!chart || !chart.box.isConnected) return;
    const { data, seconds, plot } = chart;
    if (data[0].length && at <= data[0].at(-1)) return;
    data[0].push(at); data[1].push(load); data[2].push(price);
    const from = at - seconds;
    // The last point before the window stays, at its edge: it is what was in force there.
    while (data[0].length > 2 && (data[0][1] < from || data[0].length > POINTS_MAX)) data.forEach((each) => each.shift());
    if (data[0][0] < from) data[0][0] = from;
    plot.setData(data);
  };

  /* the stream */
  const live = (state, text) => { document.body.dataset.live = state; say(find(".live span"), text); };
  const connect = () => {
    const stream = new EventSource(document.body.dataset.events);
    stream.addEventListener("board", (event) => { live("on", "live"); onBoard(JSON.parse(event.data)); });
    stream.addEventListener("calls", (event) => onCalls(event.data));
    stream.addEventListener("purse", (event) => { find("#purse").innerHTML = event.data; });
    stream.addEventListener("away", () => live("away", "database away"));
    stream.addEventListener("ended", () => { stream.close(); location.assign("/console/login"); });
    stream.onerror = () => {
      live("off", "reconnecting");
      if (stream.readyState === EventSource.CLOSED) setTimeout(connect, BACK_MS);
    };
    addEventListener("pagehide", () => stream.close(), { once: true });
  };

  const start = () => {
    localise(document);
    document.addEventListener("htmx:after:swap", () => localise(document));
    all("#search").forEach(search);
    const panel = document.getElementById("endpoint");
    if (!panel) return;
    new MutationObserver(draw).observe(panel, { childList: true });
    panel.addEventListener("click", (event) => {
      const button = event.target.closest("[data-minutes]");
      if (!button) return;
      all("[data-minutes]", panel).forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
      draw();
    });
    document.addEventListener("click", (event) => {
      if (event.target.closest("[data-endpoint]") && panel.getBoundingClientRect().top > innerHeight) panel.scrollIntoView({ block: "start" });
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
    let pending = 0;
    addEventListener("resize", () => { clearTimeout(pending); pending = setTimeout(draw, 200); });
    draw();
    connect();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
