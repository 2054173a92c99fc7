"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const holder = document.getElementById("chart");
  const rows = new Map([...document.querySelectorAll("tr[data-id]")].map((row) => [row.dataset.id, row]));

  // Tables ------------------------------------------------------------------------------------

  const byValue = (a, b) => (a !== "" && b !== "" && isFinite(a) && isFinite(b) ? a - b : a < b ? -1 : a > b ? 1 : 0);

  function sort(table, index, header) {
    const descending = header.getAttribute("aria-sort") === "ascending";
    for (const each of table.querySelectorAll("th[aria-sort]")) each.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const key = (row) => row.cells[index].dataset.sort ?? row.cells[index].textContent;
    const sorted = [...table.tBodies[0].rows].sort((one, other) => {
      const [a, b] = [key(one), key(other)];
      if (a === "" || b === "") return (a === "") - (b === ""); // nothing comes last, either way
      return descending ? byValue(b, a) : byValue(a, b);
    });
    table.tBodies[0].append(...sorted);
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, index) => {
      header.querySelector("button")?.addEventListener("click", () => sort(table, index, header));
    });
  }

  // Chart -------------------------------------------------------------------------------------

  if (!holder) return;
  const axes = {
    latency: { label: "latency, ms", text: (ms) => `${+ms.toPrecision(3)} ms`, tick: (ms) => `${+ms.toPrecision(6)}` },
    bytes: { label: "size", text: inBytes, tick: inBytes },
  };
  let axis = data.points.some((point) => point.latency !== null) ? "latency" : "bytes";
  let active = (data.points.find((point) => point.kind === "best") ?? data.points[0]).id;
  let drawnWidth = 0;

  function inBytes(size) {
    const step = Math.min(Math.floor(Math.log10(Math.max(size, 1)) / 3), 4);
    return `${+(size / 1000 ** step).toPrecision(3)} ${["B", "kB", "MB", "GB", "TB"][step]}`;
  }

  // Times and sizes are compared as ratios, so the axis is logarithmic as soon as they differ much.
  function horizontal(values) {
    const [low, high] = d3.extent(values);
    if (low > 0 && high / low > 3) {
      const domain = [low / 1.25, high * 1.25];
      const steps = Math.log10(high / low) > 2 ? [1] : [1, 2, 5];
      const ticks = d3.range(-9, 15).flatMap((power) => steps.map((step) => step * 10 ** power));
      return { type: "log", domain, ticks: ticks.filter((tick) => tick >= domain[0] && tick <= domain[1]) };
    }
    const room = (high - low || Math.abs(high) || 1) * 0.12;
    return { domain: [Math.max(low - room, 0), high + room], ticks: 5 };
  }

  // The steps that no file on the front lies beyond, in this view of it.
  function frontier(points) {
    const better = data.higher_is_better ? (a, b) => a > b : (a, b) => a < b;
    const kept = [];
    for (const point of d3.sort(points.filter((each) => each.onFront), (each) => each[axis])) {
      if (!kept.length || better(point.metric, kept[kept.length - 1].metric)) kept.push(point);
    }
    return kept;
  }

  function draw() {
    const width = Math.max(holder.clientWidth, 280);
    drawnWidth = holder.clientWidth;
    const points = data.points.filter((point) => point[axis] !== null);
    const limit = data.limits[axis];
    const x = horizontal(points.map((point) => point[axis]).concat(limit ?? []));
    const spans = points.filter((point) => point.onFront).flatMap((point) => point.metricRange ?? []);
    const quality = points.map((point) => point.metric).concat(data.limits.metric ?? [], spans);
    const [low, high] = d3.extent(quality);
    const room = (high - low || Math.abs(high) * 0.05 || 1) * 0.14;
    const ranges = axis === "latency" ? points.filter((point) => point.latencyRange) : [];
    const thin = { stroke: "var(--quiet)", strokeOpacity: 0.55, clip: true };
    const limits = { stroke: "var(--warn)", strokeDasharray: "2,4", strokeOpacity: 0.8 };
    const chart = Plot.plot({
      width,
      height: Math.round(Math.min(Math.max(width * 0.6, 300), 430)),
      marginLeft: 52, marginRight: 24, marginTop: 28, marginBottom: 46,
      ariaLabel: `${data.metric} against ${axis === "latency" ? "time" : "size"}`,
      x: { ...x, label: `← ${axes[axis].label}`, labelAnchor: "left", labelOffset: 40, labelArrow: "none", tickFormat: axes[axis].tick },
      y: { domain: [low - room, high + room], reverse: !data.higher_is_better, label: `↑ ${data.metric}`, labelArrow: "none", ticks: 6 },
      marks: [
        Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks: x.ticks }),
        Plot.gridY({ stroke: "var(--line)", strokeOpacity: 1, ticks: 6 }),
        limit === undefined ? null : Plot.ruleX([limit], limits),
        data.limits.metric === undefined ? null : Plot.ruleY([data.limits.metric], limits),
        limit === undefined ? null : Plot.text([limit], { x: Plot.identity, frameAnchor: "bottom", text: () => "limit", fill: "var(--warn)", textAnchor: "start", dx: 5, dy: -4 }),
        data.limits.metric === undefined ? null : Plot.text([data.limits.metric], { y: Plot.identity, frameAnchor: "right", text: () => "limit", fill: "var(--warn)", textAnchor: "end", dy: data.higher_is_better ? 9 : -9 }),
        Plot.line(frontier(points), { x: axis, y: "metric", curve: "step-after", stroke: "var(--accent)", strokeOpacity: 0.45, strokeWidth: 1.5 }),
        Plot.ruleY(ranges, { ...thin, x1: (p) => p.latencyRange[0], x2: (p) => p.latencyRange[1], y: "metric" }),
        Plot.ruleX(points.filter((p) => p.metricRange), { ...thin, x: axis, y1: (p) => p.metricRange[0], y2: (p) => p.metricRange[1] }),
        ...d3.sort(points, (p) => ["other", "front", "original", "best"].indexOf(p.kind)).map(mark),
        ...points.filter((p) => p.kind === "best" || p.kind === "original").map((p) => named(p, x.domain)),
      ],
    });
    chart.setAttribute("tabindex", -1); // some browsers would stop at the drawing itself
    holder.replaceChildren(chart);
    mind(chart, points);
    point_at(points.some((point) => point.id === active) ? active : points[0]?.id);
  }

  function mark(point) {
    const best = point.kind === "best", star = point.kind === "original";
    return Plot.dot([point], {
      x: axis, y: "metric",
      symbol: star ? "star" : "circle",
      r: star ? 8 : best ? 7 : point.onFront ? 5.5 : 4.5,
      fill: best || star ? "currentColor" : "var(--ground)",
      stroke: "currentColor", strokeWidth: 1.75,
      render(index, scales, values, dimensions, context, next) {
        const group = next(index, scales, values, dimensions, context);
        const at = { cx: values.x[0], cy: values.y[0] };
        const say = point.details.filter(([, text]) => text).map(([name, text]) => `${name} ${text}`).join("; ");
        d3.select(group)
          .attr("class", `point ${point.kind} ${point.onFront ? "on" : ""}`)
          .attr("data-id", point.id).attr("tabindex", -1).attr("role", "button")
          .attr("aria-label", `${point.name}${best ? ", recommended" : star ? ", the original" : point.onFront ? ", on the front" : ", beaten"}: ${say}`);
        for (const [kind, r] of [["ring", 12], ["reach", 16]]) {
          d3.select(group).append("circle").attr("class", kind).attr("cx", at.cx).attr("cy", at.cy).attr("r", r)
            .attr("fill", kind === "reach" ? "transparent" : "none").attr("stroke", kind === "reach" ? "none" : null);
        }
        return group;
      },
    });
  }

  function named(point, domain) {
    const middle = domain[0] > 0 && domain[1] / domain[0] > 3 ? Math.sqrt(domain[0] * domain[1]) : (domain[0] + domain[1]) / 2;
    const right = point[axis] > middle;
    const render = (index, scales, values, dimensions, context, next) => {
      const group = next(index, scales, values, dimensions, context);
      d3.select(group).attr("aria-hidden", "true").style("pointer-events", "none").selectAll("text").attr("class", "name");
      return group;
    };
    return Plot.text([point], { x: axis, y: "metric", text: "name", textAnchor: right ? "end" : "start", dx: right ? 6 : -6, dy: point.kind === "best" ? -18 : 20, render });
  }

  // What is pointed at -------------------------------------------------------------------------

  const marks = () => d3.sort([...holder.querySelectorAll(".point")], (each) => +each.querySelector(".reach").getAttribute("cx"));

  function mind(chart, points) {
    const nearest = (event) => {
      const [left, top] = d3.pointer(event, chart);
      const away = (each) => {
        const reach = each.querySelector(".reach");
        return Math.hypot(reach.getAttribute("cx") - left, reach.getAttribute("cy") - top);
      };
      const found = d3.least(marks(), away);
      return found && away(found) < 36 ? found : null;
    };
    chart.addEventListener("pointermove", (event) => {
      const found = nearest(event);
      if (found) point_at(found.dataset.id);
    });
    chart.addEventListener("click", (event) => {
      const found = nearest(event);
      if (found) go_to(found.dataset.id);
    });
    chart.addEventListener("focusin", (event) => {
      const found = event.target.closest(".point");
      if (found) point_at(found.dataset.id);
    });
    chart.addEventListener("keydown", (event) => {
      const all = marks(), at = all.findIndex((each) => each.dataset.id === active);
      const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to !== undefined) all[Math.min(Math.max(to, 0), all.length - 1)].focus();
      else if (event.key === "Enter" || event.key === " ") go_to(active);
      else return;
      event.preventDefault();
    });
  }

  function point_at(id) {
    const point = data.points.find((each) => each.id === id);
    if (!point) return;
    active = id;
    for (const each of holder.querySelectorAll(".point")) {
      each.classList.toggle("active", each.dataset.id === id);
      each.setAttribute("tabindex", each.dataset.id === id ? 0 : -1);
    }
    for (const [key, row] of rows) row.classList.toggle("active", key === id);
    const detail = document.getElementById("detail");
    if (detail.dataset.id === id) return;
    detail.dataset.id = id;
    const list = document.createElement("dl");
    for (const [name, text] of point.details) list.append(element("dt", name), element("dd", text));
    const role = { best: "recommended", original: "the original", front: "on the front", other: "beaten" }[point.kind];
    detail.replaceChildren(element("h3", point.name), element("p", role), list);
    detail.children[1].className = "muted";
  }

  function go_to(id) {
    point_at(id);
    const row = rows.get(id);
    if (!row) return;
    row.tabIndex = -1;
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  function element(name, text) {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  for (const choice of document.querySelectorAll("input[name=axis]")) {
    choice.checked = choice.value === axis;
    choice.disabled = !data.points.some((point) => point[choice.value] !== null);
    choice.addEventListener("change", () => { axis = choice.value; draw(); });
  }
  for (const [id, row] of rows) row.addEventListener("pointerenter", () => point_at(id));
  new ResizeObserver(() => { if (holder.clientWidth !== drawnWidth) draw(); }).observe(holder);
  draw();
})();
