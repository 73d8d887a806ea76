"use strict";
// Reads off the values of lines under the pointer, in all plots of one time at once.
(() => {
  const plots = [...document.querySelectorAll("svg[data-plot]")].map((svg) => {
    const data = JSON.parse(svg.dataset.plot);
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
    cursor.setAttribute("class", "cursor");
    cursor.setAttribute("y1", data.box[2]);
    cursor.setAttribute("y2", data.box[3]);
    cursor.style.display = "none";
    svg.append(cursor);
    return { svg, data, cursor };
  });
  const reading = document.createElement("div");
  reading.className = "reading";
  const digits = (value) => {
    const size = Math.abs(value);
    if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2);
    return Number(value.toPrecision(3)).toLocaleString("en");
  };
  const told = (value, unit) => {
    if (value === null) return "\u2013";
    if (unit === "%") return digits(100 * value) + "%";
    if (unit.startsWith("x")) return digits(value) + "\u00d7";
    return digits(value) + (unit ? " " + unit : "");
  };
  const clock = (s) => {
    const whole = Math.round(s), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60;
    return `${h}:${String(m).padStart(2, "0")}:${String(whole % 60).padStart(2, "0")}`;
  };
  const share = ({ data }, index) => {
    const on = data.x_log ? Math.log : Number, x = data.x;
    return (on(x[index]) - on(x[0])) / (on(x[x.length - 1]) - on(x[0]));
  };
  const place = (plot, event) => {
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.svg.getScreenCTM().inverse());
    const [left, right] = plot.data.box, x = plot.data.x;
    const wanted = (point.x - left) / (right - left);
    let best = 0;
    x.forEach((_, index) => { if (Math.abs(share(plot, index) - wanted) < Math.abs(share(plot, best) - wanted)) best = index; });
    return best;
  };
  const show = (plot, index) => {
    const [left, right] = plot.data.box;
    const at = left + share(plot, index) * (right - left);
    plot.cursor.setAttribute("x1", at);
    plot.cursor.setAttribute("x2", at);
    plot.cursor.style.display = "";
    return at;
  };
  const hide = () => { plots.forEach((each) => { each.cursor.style.display = "none"; }); reading.remove(); };
  const row = (name, css, value) => {
    const line = document.createElement("div"), figure = document.createElement("span");
    line.className = css;
    line.textContent = name;
    figure.textContent = value;
    line.append(figure);
    return line;
  };
  plots.forEach((plot) => {
    plot.svg.addEventListener("pointerleave", hide);
    plot.svg.addEventListener("pointermove", (event) => {
      const index = place(plot, event), at = plot.data.x[index];
      plots.forEach((each) => { if (each.data.times === plot.data.times && each.data.x[index] === at) show(each, index); });
      const title = document.createElement("b");
      title.textContent = plot.data.times ? clock(at) : `${plot.data.x_title} ${digits(at)}`;
      reading.replaceChildren(title, ...plot.data.lines.map(([name, css, y]) => row(name, css, told(y[index], plot.data.unit))));
      const figure = plot.svg.closest("figure"), box = figure.getBoundingClientRect();
      figure.append(reading);
      const x = event.clientX - box.left, beyond = x + reading.offsetWidth + 24 > box.width;
      reading.style.left = `${beyond ? x - reading.offsetWidth - 14 : x + 14}px`;
      reading.style.top = `${event.clientY - box.top + 12}px`;
    });
  });
})();
