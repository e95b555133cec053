/* The trends of many results. */
(() => {
  const { view, show, escape, colour, axis } = kv;
  let metric = view.metrics[0];
  const row = Object.fromEntries(view.rows.map((one) => [one.pair, one]));
  view.series.forEach((one, number) => kv.add(`series-${number}`, () => {
    const trends = one.trends[metric.key] || [];
    const log = metric.log && trends.every((trend) => trend.values.every((value) => value >= 0));
    return {
      toolbox: kv.tools(),
      legend: kv.legend(),
      grid: { left: 64, right: 20, top: 34, bottom: 84 },
      xAxis: axis("", { type: "category", data: one.started.map((when) => when.slice(0, 16).replace("T", " ")), boundaryGap: false }),
      yAxis: axis(view.heads[metric.key], { type: log ? "log" : "value", scale: true, nameGap: 50, axisLabel: { formatter: (x) => (metric.unit === "share" ? `${+(100 * x).toFixed(2)}%` : String(+x.toPrecision(3))) } }),
      tooltip: kv.tooltip((point) => `<div class="tip"><b>${escape(point.seriesName)}</b> ${escape(show[metric.unit](point.value[1]))}<br>` +
        `${escape(one.started[point.value[0]])}<br>${escape(one.builds[point.value[0]])}</div>`),
      series: trends.filter((trend) => !log || trend.values.some((value) => value > 0)).map((trend) => {
        const look = kv.look(row[trend.pair]);
        return {
          type: "line", name: trend.pair, ...look,
          data: trend.values.map((value, at) => [trend.runs[at], log && value <= 0 ? null : value]),
          markLine: {
            silent: true, symbol: "none", label: { show: false },
            lineStyle: { color: look.lineStyle.color, type: [3, 3], opacity: 0.7 },
            data: trend.changes.map((at) => ({ xAxis: trend.runs[at] })),
          },
        };
      }),
    };
  }));
  view.series.forEach((one, number) => kv.table(`series-${number}`, () => {
    const trends = one.trends[metric.key] || [];
    return {
      head: [view.heads[metric.key], ...one.started.map((when) => when.slice(0, 16).replace("T", " "))],
      rows: trends.map((trend) => [trend.pair, ...one.started.map((_, run) => {
        const at = trend.runs.indexOf(run);
        return at < 0 ? "–" : show[metric.unit](trend.values[at]);
      })]),
    };
  }));
  kv.press("metric", (key) => { metric = view.metrics.find((one) => one.key === key); });
  kv.start();
})();
