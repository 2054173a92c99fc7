"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);

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

  const ROLES = {
    best: "recommended", original: "the original", front: "on the front", other: "beaten",
    member: "as the search judged it, not trained", trained: "as the search judged it; it was trained since",
  };

  const FORMS = {
    ms: (ms) => `${+ms.toPrecision(6)}`,
    bytes: (size) => scaled(size, ["B", "kB", "MB", "GB", "TB"]),
    count: (count) => scaled(count, ["", "k", "M", "G", "T"]),
    times: (ratio) => `${+ratio.toPrecision(3)}×`,
  };

  function scaled(value, units) {
    const step = Math.min(Math.floor(Math.log10(Math.max(value, 1)) / 3), 4);
    return `${+(value / 1000 ** step).toPrecision(3)} ${units[step]}`.trim();
  }

  function element(name, text) {
    const made = document.createElement(name);
    made.textContent = text;
    return made;
  }

  function list(pairs) {
    const made = document.createElement("dl");
    for (const [name, text] of pairs) made.append(element("dt", name), element("dd", text));
    return made;
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

  // Points that can be pointed at, one at a time: `told` gives what stands beside the chart of one,
  // `go_to` is for a click on it.
  function chart_in(holder, data, axes, rows, told, go_to) {
    const section = holder.closest("section"), detail = section.querySelector(".detail");
    const names = Object.keys(axes);
    let axis = names.find((name) => data.points.some((point) => point[name] !== null)) ?? names[0];
    let active = (data.points.find((point) => point.kind === "best") ?? data.points[0]).id;
    let drawnWidth = 0;
    let kept = false; // what was clicked stays, for its lines are to be copied

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
      const files = (data.measured ?? []).filter((file) => file[axis] !== undefined);
      const limit = data.limits[axis];
      const x = horizontal([...points, ...files].map((each) => each[axis]).concat(limit ?? []));
      const spans = points.filter((point) => point.onFront).flatMap((point) => point.metricRange ?? []);
      const quality = [...points, ...files].map((each) => each.metric).concat(data.limits.metric ?? [], spans);
      const [low, high] = d3.extent(quality);
      const room = (high - low || Math.abs(high) * 0.05 || 1) * 0.14;
      const ranges = points.filter((point) => point[`${axis}Range`]);
      const thin = { stroke: "var(--quiet)", strokeOpacity: 0.55, clip: true };
      const limits = { stroke: "var(--warn)", strokeDasharray: "2,4", strokeOpacity: 0.8 };
      const chart = Plot.plot({
        width,
        height: Math.round(Math.min(Math.max(width * 0.6, 300), 430)),
        marginLeft: 52, marginRight: 24, marginTop: 28, marginBottom: 46,
        ariaLabel: `${data.metric} against ${axes[axis].against}`,
        x: { ...x, label: `← ${axes[axis].label}`, labelAnchor: "left", labelOffset: 40, labelArrow: "none", tickFormat: FORMS[axes[axis].form] },
        y: { domain: [low - room, high + room], reverse: !data.higher_is_better, label: `↑ ${data.metric}`, labelArrow: "none", ticks: 6 },
        marks: [
          Plot.gridX({ stroke: "var(--line)", strokeOpacity: 1, ticks: x.ticks }),
          Plot.gridY({ stroke: "var(--line)", strokeOpacity: 1, ticks: 6 }),
          limit === undefined ? null : Plot.ruleX([limit], limits),
          data.limits.metric === undefined ? null : Plot.ruleY([data.limits.metric], limits),
          limit === undefined ? null : Plot.text([limit], { x: Plot.identity, frameAnchor: "bottom", text: () => "limit", fill: "var(--warn)", textAnchor: "start", dx: 5, dy: -4 }),
          data.limits.metric === undefined ? null : Plot.text([data.limits.metric], { y: Plot.identity, frameAnchor: "right", text: () => "limit", fill: "var(--warn)", textAnchor: "end", dy: data.higher_is_better ? 9 : -9 }),
          Plot.line(frontier(points), { x: axis, y: "metric", curve: "step-after", stroke: "var(--accent)", strokeOpacity: 0.45, strokeWidth: 1.5, strokeDasharray: data.measured ? "4,4" : null }),
          Plot.ruleY(ranges, { ...thin, x1: (p) => p[`${axis}Range`][0], x2: (p) => p[`${axis}Range`][1], y: "metric" }),
          Plot.ruleX(points.filter((p) => p.metricRange), { ...thin, x: axis, y1: (p) => p.metricRange[0], y2: (p) => p.metricRange[1] }),
          ...measured(files, points),
          ...d3.sort(points, (p) => ["member", "trained", "other", "front", "original", "best"].indexOf(p.kind)).map(mark),
          ...points.filter((p) => p.kind === "best" || p.kind === "original").map((p) => named(p, x.domain)),
        ],
      });
      chart.setAttribute("tabindex", -1); // some browsers would stop at the drawing itself
      holder.replaceChildren(chart);
      mind(chart, points);
      point_at(points.some((point) => point.id === active) ? active : points[0]?.id);
    }

    // What was measured of a member's files, each tied to the estimate that it came from.
    function measured(files, points) {
      const from = (file) => points.find((point) => point.id === file.of);
      const tied = files.filter((file) => from(file));
      const still = { render: (index, scales, values, dimensions, context, next) => {
        const group = next(index, scales, values, dimensions, context);
        d3.select(group).attr("aria-hidden", "true").attr("class", "measured");
        return group;
      } };
      return [
        Plot.link(tied, { x1: (file) => from(file)[axis], y1: (file) => from(file).metric, x2: axis, y2: "metric", stroke: "var(--quiet)", ...still }),
        Plot.dot(files, { x: axis, y: "metric", r: 5.5, fill: "var(--ground)", stroke: "var(--accent)", strokeWidth: 1.75, ...still }),
      ];
    }

    function mark(point) {
      const best = point.kind === "best", star = point.kind === "original", estimate = data.measured !== undefined;
      return Plot.dot([point], {
        x: axis, y: "metric",
        symbol: star ? "star" : estimate ? "diamond" : "circle",
        r: star ? 8 : best ? 7 : point.onFront ? 5.5 : 4.5,
        fill: best || star || point.kind === "trained" ? "currentColor" : "var(--ground)",
        stroke: "currentColor", strokeWidth: 1.75,
        render(index, scales, values, dimensions, context, next) {
          const group = next(index, scales, values, dimensions, context);
          const at = { cx: values.x[0], cy: values.y[0] };
          const say = point.details.filter(([, text]) => text).map(([name, text]) => `${name} ${text}`).join("; ");
          d3.select(group)
            .attr("class", `point ${point.kind} ${point.onFront ? "on" : ""}`)
            .attr("data-id", point.id).attr("tabindex", -1).attr("role", "button")
            .attr("aria-label", `${point.name}, ${ROLES[point.kind]}: ${say}`);
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
        if (found && !kept) point_at(found.dataset.id);
      });
      chart.addEventListener("click", (event) => {
        const found = nearest(event);
        kept = found !== null && data.measured !== undefined;
        if (found) chosen(found.dataset.id);
      });
      chart.addEventListener("focusin", (event) => {
        const found = event.target.closest(".point");
        if (found) point_at(found.dataset.id);
      });
      chart.addEventListener("keydown", (event) => {
        const all = marks(), at = all.findIndex((each) => each.dataset.id === active);
        const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
        if (to !== undefined) all[Math.min(Math.max(to, 0), all.length - 1)].focus();
        else if (event.key === "Enter" || event.key === " ") chosen(active);
        else return;
        event.preventDefault();
      });
    }

    function point_at(id) {
      const point = data.points.find((each) => each.id === id);
      if (!point) return;
      active = id;
      for (const each of marks()) {
        each.classList.toggle("active", each.dataset.id === id);
        each.setAttribute("tabindex", each.dataset.id === id ? 0 : -1);
      }
      for (const [key, row] of rows) row.classList.toggle("active", key === id);
      if (detail.dataset.id === id) return;
      detail.dataset.id = id;
      const role = element("p", ROLES[point.kind]);
      role.className = "muted";
      detail.replaceChildren(element("h3", point.name), role, list(point.details), ...told(point));
    }

    function chosen(id) {
      point_at(id);
      go_to(id);
    }

    for (const choice of section.querySelectorAll(".switch input")) {
      choice.checked = choice.value === axis;
      choice.disabled = !data.points.some((point) => point[choice.value] !== null);
      choice.addEventListener("change", () => { axis = choice.value; draw(); });
    }
    for (const [id, row] of rows) row.addEventListener("pointerenter", () => { if (!kept) point_at(id); });
    new ResizeObserver(() => { if (holder.clientWidth !== drawnWidth) draw(); }).observe(holder);
    draw();
  }

  const rowsBy = (root, name) => new Map([...root.querySelectorAll(`tr[data-${name}]`)].map((row) => [row.dataset[name], row]));

  // The files, measured -----------------------------------------------------------------------

  const holder = document.getElementById("chart"), rows = rowsBy(document, "id");
  const files = {
    latency: { label: "latency, ms", against: "time", form: "ms" },
    bytes: { label: "size", against: "size", form: "bytes" },
  };

  function go_to_row(id) {
    const row = rows.get(id);
    if (!row) return;
    row.tabIndex = -1;
    row.focus({ preventScroll: true });
    row.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
  }

  if (holder) chart_in(holder, data, files, rows, () => [], go_to_row);

  // The members of searches, estimated --------------------------------------------------------

  function about(member, command) {
    const parts = list(member.parts);
    parts.className = "parts";
    const links = member.files.map((file) => {
      const line = element("p", ""), link = element("a", file.name);
      link.href = `#file:${file.id}`;
      link.addEventListener("click", (event) => { event.preventDefault(); go_to_row(file.id); });
      line.append("measured: ", link, `, loss ${file.say}`);
      return line;
    });
    if (!member.lines) return [parts, ...links];
    const copied = (text) => Object.assign(element("pre", text), { tabIndex: 0 });
    const [into, then] = ["To have it as a file, in the run's recipe.yaml:", "and then:"].map((text) => element("p", text));
    return [parts, into, copied(member.lines), then, copied(command)];
  }

  for (const place of document.querySelectorAll("[data-search]")) {
    const search = data.searches[place.dataset.search];
    const axes = Object.fromEntries(Object.entries(search.axes).map(([name, axis]) => [name, { ...axis, against: axis.label }]));
    const told = (member) => about(member, search.command);
    chart_in(place, search, axes, rowsBy(place.closest("section"), "member"), told, () => {});
  }
})();
