// Two series that lightweight-charts does not have: shaded holes, and the band between two prices.

import { customSeriesDefaultOptions } from "./vendor/lightweight-charts.js";

/** Points that follow each other within `reach` slots: a longer gap ends a run. */
function runs(data, reach) {
  if (!data?.visibleRange) return [];
  const { from, to } = data.visibleRange;
  const found = [];
  for (const bar of data.bars.slice(Math.max(0, from - 1), to + 1)) {
    const run = found.at(-1);
    if (run && bar.x - run.at(-1).x <= (reach + 0.5) * data.barSpacing) run.push(bar);
    else found.push([bar]);
  }
  return found;
}

class Layer {
  #data = null;
  #options = null;

  update(data, options) {
    this.#data = data;
    this.#options = options;
  }

  renderer() {
    return {
      draw: (target, toY) =>
        target.useBitmapCoordinateSpace((scope) => {
          for (const run of runs(this.#data, this.#options.reach))
            this.drawRun(run, scope, this.#options, this.#data.barSpacing, toY);
        }),
    };
  }
}

/** Slots without data, shaded from top to bottom; points are { time, hole: true }. */
export class Holes extends Layer {
  defaultOptions() {
    return { ...customSeriesDefaultOptions, color: "#888", reach: 1, priceLineVisible: false, lastValueVisible: false };
  }

  isWhitespace(point) {
    return !point.hole;
  }

  priceValueBuilder() {
    return [0];
  }

  drawRun(run, { context, bitmapSize, horizontalPixelRatio: wide }, { color }, spacing) {
    const [left, right] = [run[0].x - spacing / 2, run.at(-1).x + spacing / 2].map((x) => Math.round(x * wide));
    context.fillStyle = color;
    context.fillRect(left, 0, Math.max(1, right - left), bitmapSize.height);
  }
}

/** The band between two prices; points are { time, lower, upper }. */
export class Band extends Layer {
  defaultOptions() {
    return { ...customSeriesDefaultOptions, color: "#888", reach: 1, priceLineVisible: false, lastValueVisible: false };
  }

  isWhitespace(point) {
    return point.upper === undefined;
  }

  priceValueBuilder(point) {
    return [point.lower, point.upper];
  }

  drawRun(run, { context, horizontalPixelRatio: wide, verticalPixelRatio: high }, { color }, spacing, toY) {
    const edge = (name) => run.map((bar) => [bar.x * wide, toY(bar.originalData[name]) * high]);
    const [upper, lower] = [edge("upper"), edge("lower")];
    if (run.length === 1) for (const line of [upper, lower]) line.push([line[0][0] + (spacing / 2) * wide, line[0][1]]);
    const trace = (points) => points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
    context.strokeStyle = context.fillStyle = color;
    context.globalAlpha = 0.13;
    context.beginPath();
    trace(upper);
    for (const [x, y] of [...lower].reverse()) context.lineTo(x, y);
    context.fill();
    context.globalAlpha = 0.55;
    context.lineWidth = Math.max(1, Math.floor(wide));
    context.beginPath();
    trace(upper);
    trace(lower);
    context.stroke();
    context.globalAlpha = 1;
  }
}
