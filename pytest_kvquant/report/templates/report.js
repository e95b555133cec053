/* The charts of one result. */
(() => {
  const { view, show, escape, colour, axis } = kv;
  const rows = view.rows;
  const measured = (key) => rows.filter((row) => row[key] !== null && row[key] !== undefined);
  const marks = { good: "", open: " ?", bad: " ✗" };

  /* ---- the card that hovering a pair shows ---- */
  const card = (row) => {
    const lines = view.metrics
      .filter((metric) => row[metric.key] !== null)
      .map((metric) => `<tr><th>${escape(metric.label)}</th><td>${escape(show[metric.unit](row[metric.key]))}</td></tr>`);
    return `<div class="tip"><b>${escape(row.pair)}</b> <span class="tag ${row.tone}">${escape(row.verdict)}</span>` +
      `<table>${lines.join("")}</table></div>`;
  };

  /* ---- heat map ---- */
  let metric = view.metrics[0];
  const deep = (value, present) => {
    /* 0 … 1: how far from f16; below 0 … −1 for the other direction of a two-sided figure. */
    if (metric.better === "zero") {
      const most = Math.max(...present.map(Math.abs)) || 1;
      return value / most;
    }
    const scale = metric.log ? Math.log : (x) => x;
    const usable = metric.log ? present.filter((x) => x > 0) : present;
    if (metric.log && value <= 0) return 0;
    const low = scale(Math.min(...usable)), high = scale(Math.max(...usable));
    const t = high > low ? (scale(value) - low) / (high - low) : 0;
    return metric.better === "high" ? 1 - t : t;
  };
  const ramp = (t) => {
    const stops = t < 0
      ? [colour("ramp-0"), colour("under-2"), colour("under-4")]
      : ["0", "1", "2", "3", "4"].map((step) => colour(`ramp-${step}`));
    return echarts.color.lerp(Math.min(1, Math.abs(t)), stops);
  };
  const luminance = (rgb) => {
    const [r, g, b] = echarts.color.parse(rgb).map((x) => x / 255).map((x) => (x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ink = (background) => (luminance(background) > 0.2 ? "#10161d" : "#ffffff");
  /* In a narrow cell fewer digits, and KL in thousandths written as a power of ten. */
  const short = (value, width) => {
    if (width > 62) return show[metric.unit](value);
    if (metric.unit === "nats") return value > 0 && value < 0.001 ? value.toExponential(0) : String(+value.toPrecision(2));
    return show[metric.unit](value).replace(/(\.\d)\d+%$/, "$1%").replace(/(\.\d\d)\d$/, "$1");
  };

  kv.add("heat", () => {
    const present = measured(metric.key).map((row) => row[metric.key]);
    const narrow = document.getElementById("heat").clientWidth < 560;
    const width = (document.getElementById("heat").clientWidth - 70) / kv.values.length;
    const size = width < 44 ? 9.5 : width < 60 ? 11 : 13;
    /* What does not pass comes last, so that no neighbour is drawn over its frame. */
    const ordered = [...rows].sort((a, b) => (a.tone === "good" ? 0 : 1) - (b.tone === "good" ? 0 : 1));
    const data = ordered.map((row) => {
      const value = row[metric.key];
      const known = value !== null;
      const fill = known ? ramp(deep(value, present)) : colour(row.tone === "good" ? "sunken" : `${row.tone}-soft`);
      const words = known ? short(value, width) : row.tone === "good" ? "–" : row.verdict;
      return {
        value: [kv.values.indexOf(row.v), kv.kinds.indexOf(row.k), known ? value : 0],
        row,
        label: {
          formatter: words + (known && width < 62 ? marks[row.tone].replace(" ", "\n") : marks[row.tone]),
          lineHeight: size + 3,
          color: known ? ink(fill) : colour(row.tone === "good" ? "muted" : row.tone),
          fontSize: known || width > 62 ? size : size - 1.5,
          fontWeight: row.tone === "good" ? 400 : 700,
          width: width - 4,
          overflow: known ? "none" : "break",
        },
        itemStyle: {
          color: fill,
          borderColor: row.tone === "good" ? colour("card") : colour(row.tone),
          borderWidth: row.tone === "good" ? 2 : 3,
          borderRadius: 4,
        },
      };
    });
    const mono = getComputedStyle(document.querySelector(".pair")).fontFamily;
    const names = { fontFamily: mono, color: colour("text"), fontSize: narrow ? 11 : 13, interval: 0, hideOverlap: false };
    const slanted = { ...names, rotate: width < 52 ? 40 : 0 };
    scale(present);
    return {
      grid: { left: 8, right: 8, top: 12, bottom: 4, containLabel: true },
      xAxis: axis("", { type: "category", data: kv.values, position: "top", axisLabel: slanted, axisTick: { show: false }, splitLine: { show: false } }),
      yAxis: axis("", { type: "category", data: kv.kinds, inverse: true, axisLabel: names, axisTick: { show: false }, splitLine: { show: false } }),
      tooltip: kv.tooltip((point) => card(point.data.row)),
      series: [{
        type: "heatmap", data, label: { show: true },
        emphasis: { itemStyle: { borderColor: colour("accent"), borderWidth: 3 } },
      }],
    };
  }, (point) => {
    location.hash = kv.anchor(point.data.row.pair);
  });
  kv.table("heat", () => ({
    head: ["K \\ V", ...kv.values],
    rows: kv.kinds.map((k) => [k, ...kv.values.map((v) => {
      const row = rows.find((one) => one.k === k && one.v === v);
      if (!row) return "";
      const value = row[metric.key];
      const words = value === null ? row.verdict : show[metric.unit](value) + marks[row.tone];
      return { text: words, href: `#${kv.anchor(row.pair)}` };
    })]),
  }));

  const scale = (present) => {
    const element = document.getElementById("scale");
    element.replaceChildren();
    if (!present.length) return;
    const bar = document.createElement("i");
    const two = metric.better === "zero";
    const steps = two ? [-1, -0.5, 0, 0.25, 0.5, 0.75, 1] : [0, 0.25, 0.5, 0.75, 1];
    bar.style.background = `linear-gradient(90deg, ${steps.map(ramp).join(", ")})`;
    const low = Math.min(...present), high = Math.max(...present), most = Math.max(Math.abs(low), Math.abs(high));
    const ends = two ? [-most, most] : metric.better === "high" ? [high, low] : [low, high];
    element.append(show[metric.unit](ends[0]), bar, `${show[metric.unit](ends[1])}${metric.log ? " (logarithmic)" : ""}`);
  };
  kv.press("metric", (key) => { metric = view.metrics.find((one) => one.key === key); });

  /* ---- quality against memory ---- */
  let quality = "kl";
  kv.add("tradeoff", () => {
    const points = rows.filter((row) => row.memory !== null && row[quality] !== null);
    const log = quality === "kl";
    const positive = points.map((row) => row[quality]).filter((x) => x > 0);
    const floor = positive.length ? 10 ** Math.floor(Math.log10(Math.min(...positive)) - 0.3) : 1e-6;
    const height = (row) => (log ? Math.max(row[quality], floor) : row[quality]);
    const speeds = points.map((row) => row.tg_ratio).filter((x) => x !== null);
    const coloured = speeds.length > 0;
    const unit = view.metrics.find((one) => one.key === quality).unit;
    const front = points.filter((row) => row.front).sort((a, b) => a.memory - b.memory);
    /* Among many points only those of the front and those that do not pass are named. */
    const named = (row) => (points.length <= 8 || row.front || row.tone !== "good" ? row.pair : "");
    const spread = { ...(coloured ? {} : { itemStyle: { color: colour("accent") } }) };
    return {
      toolbox: kv.tools(),
      grid: { left: 58, right: coloured ? 66 : 24, top: 34, bottom: 46 },
      xAxis: axis("bytes per token", { type: "value", scale: true, boundaryGap: ["10%", "6%"], nameGap: 28, axisLabel: { formatter: (x) => x.toLocaleString("en-US") } }),
      yAxis: axis(log ? "mean KL, nats" : "top-1 agreement", {
        type: log ? "log" : "value", scale: true, nameGap: 46,
        axisLabel: { formatter: (x) => (log && x <= floor * 1.001 ? "0" : log ? String(+x.toPrecision(1)) : `${+(100 * x).toFixed(1)}%`) },
        ...(log ? { min: floor } : {}),
      }),
      ...(coloured ? {
        visualMap: {
          type: "continuous", seriesIndex: 0, dimension: 2, min: Math.min(...speeds), max: Math.max(...speeds),
          right: 0, top: "middle", itemWidth: 12, itemHeight: 120, calculable: true, precision: 2,
          text: ["decode ×f16", ""], textStyle: { color: colour("muted"), fontSize: 11 },
          inRange: { color: kv.dark() ? ["#6b3f2a", "#e8a15c", "#ffe6b8"] : ["#f2c894", "#d06a1f", "#5e2500"] },
          outOfRange: { color: colour("line") },
        },
      } : {}),
      tooltip: kv.tooltip((point) => (point.data.row ? card(point.data.row) : "")),
      series: [
        {
          type: "scatter", symbolSize: (value, point) => (point.data.row.front ? 14 : 10), z: 3, ...spread,
          data: points.map((row) => ({
            value: [row.memory, height(row), row.tg_ratio],
            row,
            symbol: row.tone === "bad" ? "diamond" : "circle",
            itemStyle: { borderColor: row.tone === "good" ? colour("card") : colour(row.tone), borderWidth: row.tone === "good" ? 1 : 3 },
          })),
          label: { show: true, position: "top", formatter: (point) => named(point.data.row), fontSize: 11, color: colour("text") },
          labelLayout: { hideOverlap: true },
          emphasis: { focus: "self", scale: 1.4, label: { show: true, fontWeight: 700, formatter: (point) => point.data.row.pair } },
        },
        {
          type: "line", step: "end", silent: true, symbol: "none", z: 2,
          data: front.map((row) => [row.memory, height(row)]),
          lineStyle: { color: colour("accent"), width: 2, type: [6, 4], opacity: 0.8 },
          tooltip: { show: false },
        },
      ],
      aria: { enabled: true, label: { description: `Of ${points.length} pairs these are the Pareto front: ${front.map((row) => `${row.pair} ${show[unit](row[quality])}`).join(", ")}` } },
    };
  });
  kv.table("tradeoff", () => ({
    head: ["pair", "bytes per token", "KL, nats", "top-1, %", "decode, × f16", "on the front"],
    rows: rows.filter((row) => row.memory !== null && row.kl !== null).map((row) => [
      { text: row.pair, href: `#${kv.anchor(row.pair)}` }, show.bytes(row.memory), show.nats(row.kl), show.share(row.top1),
      row.tg_ratio === null ? "–" : show.ratio(row.tg_ratio), row.front ? "yes" : "",
    ]),
  }));
  kv.press("tradeoff-choice", (key) => { quality = key; });

  /* ---- which pairs the curves show ---- */
  const choice = document.getElementById("shown");
  const chosen = (row) => {
    const [kind, name] = (choice ? choice.value : "all").split(":");
    if (kind === "all") return true;
    if (kind === "same") return row.k === row.v;
    if (kind === "bad") return row.tone !== "good";
    return kind === "k" ? row.k === name : row.v === name;
  };
  if (choice) choice.addEventListener("change", () => { kv.draw(); kv.fillAll(); });
  const lines = (having, points) => rows.filter((row) => having(row) && chosen(row)).map((row) => ({
    type: "line", name: row.pair, data: points(row), ...kv.look(row),
  }));
  const floorLine = () => (view.floor ? {
    markLine: {
      silent: true, symbol: "none", data: [{ yAxis: view.floor }],
      lineStyle: { color: colour("muted"), type: [3, 3] },
      label: { formatter: "noise floor", position: "insideEndTop", color: colour("muted"), fontSize: 11 },
    },
  } : {});

  /* ---- tok/s over depth ---- */
  let path = "tg", relative = "ratio";
  const depths = [...new Set(rows.flatMap((row) => row.speeds.map((one) => one.depth)))].sort((a, b) => a - b);
  const deepName = (depth) => (depth >= 1024 && depth % 1024 === 0 ? `${depth / 1024}K` : String(depth));
  /* One depth makes no lines: a point a pair then, with its figure. */
  const pointsOfPairs = (key, unit) => {
    const found = rows.filter((row) => row.speeds.some((one) => one[key]));
    const narrow = document.getElementById("speeds").clientWidth / (found.length || 1) < 76;
    /* Never closer than a fifth: what hardly differs has to look alike. */
    const ratios = found.map((row) => row.speeds.find((one) => one[key])[key]);
    const low = Math.min(0.8, Math.floor(10 * Math.min(...ratios)) / 10), high = Math.max(1, Math.ceil(10 * Math.max(...ratios)) / 10);
    return {
      toolbox: kv.tools(),
      grid: { left: 58, right: 20, top: 34, bottom: narrow ? 70 : 34 },
      xAxis: axis("", {
        type: "category", data: found.map((row) => row.pair), splitLine: { show: false },
        axisLabel: { interval: 0, hideOverlap: false, rotate: narrow ? 50 : 0, color: colour("text") },
      }),
      yAxis: axis(relative === "ratio" ? "times f16/f16" : "tok/s", {
        type: "value", nameGap: 44, axisLabel: { formatter: (x) => (x >= 100 ? show.count(x) : String(+x.toPrecision(3))) },
        ...(relative === "ratio" ? { min: low, max: high, interval: high - low > 0.6 ? 0.2 : 0.1 } : {}),
      }),
      tooltip: kv.tooltip((point) => (point.data.row ? card(point.data.row) : "")),
      series: [{
        type: "scatter", symbolSize: 11,
        data: found.map((row) => {
          const { symbol, itemStyle } = kv.look(row);
          return { value: [row.pair, row.speeds.find((one) => one[key])[key]], row, symbol, itemStyle };
        }),
        label: { show: true, position: "top", fontSize: 11, color: colour("text"), formatter: (point) => unit(point.value[1]).replace("×", "") },
        labelLayout: { hideOverlap: true },
        ...(relative === "ratio" ? { markLine: {
          silent: true, symbol: "none", data: [{ yAxis: 1 }],
          lineStyle: { color: colour("muted"), type: [3, 3] }, label: { show: false },
        } } : {}),
      }],
    };
  };
  kv.add("speeds", () => {
    const key = relative === "ratio" ? `${path}_ratio` : path;
    const unit = relative === "ratio" ? show.ratio : show.speed;
    if (depths.length === 1) return pointsOfPairs(key, unit);
    return {
      toolbox: kv.tools(),
      legend: kv.legend(),
      grid: { left: 58, right: 20, top: 34, bottom: 74 },
      xAxis: axis("tokens in the cache", { type: "category", data: depths.map(deepName), nameGap: 26, boundaryGap: false }),
      yAxis: axis(relative === "ratio" ? "times f16/f16" : "tok/s", { type: "log", logBase: 2, nameGap: 44, axisLabel: { formatter: (x) => String(+x.toPrecision(2)) } }),
      tooltip: kv.tooltip((point) => `<div class="tip"><b>${escape(point.seriesName)}</b> at ${escape(point.name)}: ${escape(unit(point.value))}${relative === "ratio" ? " of f16" : " tok/s"}</div>`),
      series: lines((row) => row.speeds.length, (row) => depths.map((depth) => {
        const one = row.speeds.find((speed) => speed.depth === depth);
        return one && one[key] ? one[key] : null;
      })),
    };
  });
  kv.table("speeds", () => {
    const key = relative === "ratio" ? `${path}_ratio` : path;
    const unit = relative === "ratio" ? "× f16" : "tok/s";
    const text = relative === "ratio" ? show.ratio : show.speed;
    return {
      head: [`${path === "tg" ? "decode" : "prefill"}, ${unit}`, ...depths.map((depth) => `${depth.toLocaleString("en-US")} tokens`)],
      rows: rows.filter((row) => row.speeds.length).map((row) => [
        { text: row.pair, href: `#${kv.anchor(row.pair)}` },
        ...depths.map((depth) => { const one = row.speeds.find((speed) => speed.depth === depth); return one && one[key] ? text(one[key]) : "–"; }),
      ]),
    };
  });
  kv.press("speed-choice", (key, group) => { if (group === "path") path = key; else relative = key; });

  /* ---- KL over the position ---- */
  kv.add("positions", () => {
    const series = lines((row) => row.positions.some((x) => x > 0), (row) => {
      const run = view.scored / row.positions.length;
      return row.positions.map((value, at) => [Math.round(view.first + (at + 0.5) * run), value > 0 ? value : null]);
    });
    if (series.length) Object.assign(series[0], floorLine());
    return {
      toolbox: kv.tools(),
      legend: kv.legend(),
      grid: { left: 58, right: 20, top: 34, bottom: 74 },
      xAxis: axis("position in the chunk", { type: "value", min: view.first, max: view.first + view.scored, nameGap: 26 }),
      yAxis: axis("mean KL, nats", { type: "log", nameGap: 46, axisLabel: { formatter: (x) => String(+x.toPrecision(1)) } }),
      tooltip: kv.tooltip((point) => `<div class="tip"><b>${escape(point.seriesName)}</b> around token ${point.value[0]}: ${escape(show.nats(point.value[1]))} nats</div>`),
      series,
    };
  });

  kv.table("positions", () => {
    const having = rows.filter((row) => row.positions.some((x) => x > 0) && chosen(row));
    const count = Math.max(...having.map((row) => row.positions.length));
    const middle = (at) => Math.round(view.first + (at + 0.5) * (view.scored / count));
    return {
      head: ["around token", ...having.map((row) => `${row.pair}, nats`)],
      rows: Array.from({ length: count }, (_, at) => [middle(at), ...having.map((row) => show.nats(row.positions[at]))]),
    };
  });

  /* ---- how KL is distributed over tokens ---- */
  kv.add("distribution", () => {
    const [low, , width] = view.edges;
    return {
      toolbox: kv.tools(),
      legend: kv.legend(),
      grid: { left: 58, right: 20, top: 34, bottom: 74 },
      xAxis: axis("KL of a token, nats", {
        type: "value", min: (range) => Math.floor(range.min), max: (range) => Math.ceil(range.max), nameGap: 26, interval: 1,
        axisLabel: { formatter: (x) => `1e${x}` },
      }),
      yAxis: axis("share of tokens", { type: "value", nameGap: 46, axisLabel: { formatter: (x) => `${+(100 * x).toFixed(1)}%` } }),
      tooltip: kv.tooltip((point) => `<div class="tip"><b>${escape(point.seriesName)}</b>: ${(100 * point.value[1]).toFixed(1)}% of tokens around ${escape(show.nats(10 ** point.value[0]))} nats</div>`),
      series: lines((row) => row.positions.some((x) => x > 0), (row) => {
        const total = row.histogram.reduce((a, b) => a + b, 0);
        const first = row.histogram.findIndex((x) => x > 0), last = row.histogram.findLastIndex((x) => x > 0);
        return row.histogram.slice(first, last + 1).map((count, at) => [low + (first + at + 0.5) * width, count / total]);
      }).map((series) => ({ ...series, smooth: 0.3, showSymbol: false })),
    };
  });

  kv.table("distribution", () => {
    const [low, , width] = view.edges;
    const having = rows.filter((row) => row.positions.some((x) => x > 0) && chosen(row));
    const used = (at) => having.some((row) => row.histogram[at] > 0);
    const bins = Array.from({ length: Math.max(...having.map((row) => row.histogram.length)) }, (_, at) => at).filter(used);
    return {
      head: ["KL around, nats", ...having.map((row) => `${row.pair}, % of tokens`)],
      rows: bins.map((at) => [show.nats(10 ** (low + (at + 0.5) * width)), ...having.map((row) => {
        const total = row.histogram.reduce((a, b) => a + b, 0);
        return (100 * (row.histogram[at] || 0) / total).toFixed(2);
      })]),
    };
  });

  /* ---- recall by distance ---- */
  const distances = [...new Set(rows.flatMap((row) => row.recall.map((one) => one.distance)))].sort((a, b) => a - b);
  const recalled = (row, distance) => row.recall.find((one) => one.distance === distance);
  const percent = (x) => `${Math.round(100 * x)}%`;
  kv.add("recalled", () => ({
    toolbox: kv.tools(),
    legend: kv.legend(),
    grid: { left: 58, right: 20, top: 34, bottom: 74 },
    xAxis: axis("tokens back", { type: "category", data: distances.map(deepName), nameGap: 26 }),
    yAxis: axis("kept of f16's gain", {
      type: "value", scale: true, nameGap: 46, axisLabel: { formatter: percent },
      min: (range) => Math.min(0.8, Math.floor(10 * range.min) / 10), max: (range) => Math.max(1, Math.ceil(10 * range.max) / 10),
    }),
    tooltip: kv.tooltip((point) => `<div class="tip"><b>${escape(point.seriesName)}</b> keeps ${percent(point.value)} at ${escape(point.name)}${point.data.failed ? ": fails" : ""}</div>`),
    series: lines((row) => row.recall.length, (row) => distances.map((distance) => {
      const one = recalled(row, distance), failed = Boolean(one && one.verdict === "fail");
      return {
        value: one && one.kept !== null ? one.kept : null, failed,
        label: { show: failed, position: "top", formatter: "✗", color: colour("bad"), fontWeight: 700, fontSize: 14 },
      };
    })),
  }));
  kv.table("recalled", () => ({
    head: ["kept, % of f16's gain", ...distances.map((distance) => `${distance.toLocaleString("en-US")} tokens`)],
    rows: rows.filter((row) => row.recall.length && chosen(row)).map((row) => [
      { text: row.pair, href: `#${kv.anchor(row.pair)}` },
      ...distances.map((distance) => {
        const one = recalled(row, distance);
        if (!one) return "–";
        if (one.verdict === "cannot") return "f16 cannot";
        return (one.kept === null ? "NaN" : percent(one.kept)) + { fail: marks.bad, inconclusive: marks.open, pass: "" }[one.verdict];
      }),
    ]),
  }));

  const save = document.getElementById("save");
  save.addEventListener("click", async () => {
    const text = await kvUnpack("result");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = "kvquant-result.json";
    link.click();
    URL.revokeObjectURL(link.href);
  });

  kv.start();
})();
