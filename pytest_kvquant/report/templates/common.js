/* What every page shares: numbers, theme, charts that follow theme and size, copy buttons. */
const kv = (() => {
  const view = JSON.parse(document.getElementById("view").textContent);
  const root = document.documentElement;
  const escape = echarts.format.encodeHTML;

  /* As format.py writes them: the same figure has the same digits in the page, the terminal and the
     summary. tests/report/test_page.py compares the two. */
  const digits = (x) => { let n = 2; while (Math.abs(x) < 10 ** (2 - n) && n < 8) n += 1; return n; };
  const show = {
    nats: (x) => {
      if (x === 0) return "0";
      if (Math.abs(x) < 1e-5) return x.toExponential(1).replace(/e-(\d)$/, "e-0$1");
      return Math.abs(x) >= 1 ? x.toFixed(2) : x.toFixed(digits(x));
    },
    share: (x) => (100 * x).toFixed(2) + "%",
    signed: (x) => (x < 0 || Object.is(x, -0) ? "" : "+") + x.toFixed(4),
    ratio: (x) => x.toFixed(2) + "×",
    bytes: (x) => Math.round(x).toLocaleString("en-US"),
    count: (x) => Math.round(x).toLocaleString("en-US"),
    speed: (x) => (x >= 100 ? Math.round(x).toLocaleString("en-US") : String(+x.toPrecision(3))),
  };

  /* Custom properties hold light-dark(); a probe element resolves them to a plain colour. */
  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  const colours = new Map();
  const colour = (name) => {
    if (!colours.has(name)) {
      probe.style.color = `var(--${name})`;
      colours.set(name, getComputedStyle(probe).color);
    }
    return colours.get(name);
  };

  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const remember = (theme) => { try { localStorage.setItem("kvquant-theme", theme); } catch { /* from disk, without storage */ } };
  try { root.dataset.theme = localStorage.getItem("kvquant-theme") || ""; } catch { /* as above */ }

  const charts = [];
  const draw = () => {
    colours.clear();
    charts.forEach(({ chart, option }) => chart.setOption({ ...frame(), ...option() }, true));
  };
  const frame = () => ({
    backgroundColor: "transparent",
    animation: false,
    textStyle: { color: colour("text"), fontFamily: getComputedStyle(document.body).fontFamily },
  });
  const add = (id, option, click) => {
    const element = document.getElementById(id);
    if (!element) return;
    const chart = echarts.init(element, null, { renderer: "svg" });
    if (click) chart.on("click", click);
    charts.push({ chart, option });
    let width = element.clientWidth;
    new ResizeObserver(() => {
      if (element.clientWidth === width) return;
      width = element.clientWidth;
      chart.resize();
      chart.setOption({ ...frame(), ...option() }, true);
    }).observe(element);
  };

  const axis = (name, extra = {}) => ({
    name,
    nameLocation: "middle",
    nameTextStyle: { color: colour("muted"), fontSize: 12 },
    axisLabel: { color: colour("muted"), fontSize: 11.5, hideOverlap: true, ...extra.axisLabel },
    axisLine: { lineStyle: { color: colour("line") } },
    axisTick: { lineStyle: { color: colour("line") } },
    splitLine: { lineStyle: { color: colour("line") } },
    minorSplitLine: { show: false },
    ...Object.fromEntries(Object.entries(extra).filter(([key]) => key !== "axisLabel")),
  });
  const tooltip = (formatter, extra = {}) => ({
    confine: true,
    backgroundColor: colour("card"),
    borderColor: colour("line"),
    textStyle: { color: colour("text"), fontSize: 13 },
    formatter,
    ...extra,
  });
  const tools = () => ({
    right: 4,
    top: 0,
    itemSize: 14,
    iconStyle: { borderColor: colour("muted") },
    emphasis: { iconStyle: { borderColor: colour("accent") } },
    feature: { dataZoom: { title: { zoom: "zoom into a box", back: "zoom back" } }, restore: { title: "whole chart" } },
  });
  const legend = () => ({
    type: "scroll",
    bottom: 0,
    textStyle: { color: colour("text"), fontSize: 12 },
    inactiveColor: colour("line"),
    pageTextStyle: { color: colour("muted") },
    pageIconColor: colour("accent"),
    pageIconInactiveColor: colour("line"),
    selector: [{ type: "all", title: "all" }, { type: "inverse", title: "invert" }],
    selectorLabel: { color: colour("muted"), borderColor: colour("line") },
  });

  /* One hue per K type, one line pattern and symbol per V type: pairs that share a type look alike. */
  const kinds = [...new Set(view.rows.map((row) => row.k))];
  const values = [...new Set(view.rows.map((row) => row.v))];
  const patterns = ["solid", [7, 4], [2, 3], [10, 3, 2, 3], [5, 2], [1, 4], [12, 4]];
  const symbols = ["circle", "rect", "triangle", "diamond", "roundRect", "pin", "arrow"];
  const look = (row) => {
    const stroke = colour(`series-${kinds.indexOf(row.k) % 9}`);
    const at = values.indexOf(row.v);
    return {
      symbol: symbols[at % symbols.length],
      symbolSize: 6,
      itemStyle: { color: stroke },
      lineStyle: { color: stroke, width: 2, type: patterns[at % patterns.length] },
      emphasis: { focus: "series", lineStyle: { width: 3.5 } },
      blur: { lineStyle: { opacity: 0.15 }, itemStyle: { opacity: 0.15 } },
    };
  };

  /* The table behind a chart: made when it is opened, and again when the chart's choice changes.
     A cell of it is text, or {text, href}. */
  const tables = new Map();
  const table = (chart, content) => tables.set(chart, content);
  const cell = (kind, what) => {
    const one = document.createElement(kind);
    const { text, href } = what !== null && typeof what === "object" ? what : { text: what };
    if (href) {
      const link = document.createElement("a");
      link.href = href;
      link.textContent = text;
      one.append(link);
    } else one.textContent = text;
    return one;
  };
  const fill = (fold) => {
    if (!fold.open || !tables.has(fold.dataset.table)) return;
    const { head, rows } = tables.get(fold.dataset.table)();
    const made = document.createElement("table");
    const line = (place, cells, kind) => {
      const row = place.insertRow();
      cells.forEach((what, at) => {
        const one = cell(kind === "th" || at === 0 ? "th" : "td", what);
        if (one.tagName === "TH") one.scope = kind === "th" ? "col" : "row";
        row.append(one);
      });
    };
    line(made.createTHead(), head, "th");
    const body = made.createTBody();
    rows.forEach((cells) => line(body, cells, "td"));
    fold.querySelector(".scroll").replaceChildren(made);
  };
  const fillAll = () => document.querySelectorAll("details[data-table]").forEach(fill);

  const anchor = (pair) => pair.replace("/", "-");

  const press = (group, act) => {
    const element = document.getElementById(group);
    if (!element) return;
    element.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-key]");
      if (!button) return;
      for (const other of element.querySelectorAll("button[data-key]"))
        if (other.dataset.group === button.dataset.group)
          other.setAttribute("aria-pressed", String(other === button));
      act(button.dataset.key, button.dataset.group);
      draw();
      fillAll();
    });
  };

  const start = () => {
    draw();
    document.getElementById("theme").addEventListener("click", () => {
      root.dataset.theme = dark() ? "light" : "dark";
      remember(root.dataset.theme);
      draw();
    });
    system.addEventListener("change", draw);
    document.addEventListener("click", async (event) => {
      const button = event.target.closest("button[data-copy]");
      if (!button) return;
      const code = button.parentElement.querySelector("code");
      try {
        await navigator.clipboard.writeText(code.textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(code);
        button.textContent = "Selected";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    /* A link to a pair or a gate opens what it is folded in. */
    const unfold = () => {
      const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (!target) return;
      for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
      target.scrollIntoView({ block: "center", behavior: "instant" });
    };
    addEventListener("hashchange", unfold);
    unfold();
    document.querySelectorAll("details[data-table]").forEach((fold) => fold.addEventListener("toggle", () => fill(fold)));
    /* On paper: the light theme, at the width of a page; what is folded stays folded. */
    let before = "";
    addEventListener("beforeprint", () => {
      before = root.dataset.theme;
      root.dataset.theme = "light";
      charts.forEach(({ chart }) => chart.resize({ width: Math.min(chart.getDom().clientWidth, 680), height: 290 }));
      draw();
    });
    addEventListener("afterprint", () => {
      root.dataset.theme = before;
      charts.forEach(({ chart }) => chart.resize({ width: "auto", height: "auto" }));
      draw();
    });
    /* The page of a run that goes on loads itself again, until it is told not to. */
    const follow = document.getElementById("follow");
    if (follow) {
      follow.addEventListener("click", () => {
        const on = follow.getAttribute("aria-pressed") !== "true";
        follow.setAttribute("aria-pressed", String(on));
        follow.textContent = on ? "Follows the run" : "Stands still";
      });
      setInterval(() => { if (follow.getAttribute("aria-pressed") === "true") location.reload(); }, 5000);
    }
    root.dataset.ready = "yes";
  };

  return { view, show, escape, colour, dark, add, axis, tooltip, tools, legend, look, press, draw, start, kinds, values, table, fillAll, anchor };
})();
globalThis.kv = kv;
