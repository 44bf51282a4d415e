// Elements from values. Text is always set as text, never as HTML: what the lake holds comes from outside.

const SVG = "http://www.w3.org/2000/svg";

/** An element: `h("a", { class: "coin", href }, "Bitcoin")`. Null children are left out; `on...` are listeners. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An SVG element. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    // The content security policy forbids style attributes; setting properties is allowed.
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/** Text for screen readers only. */
export const hidden = (text) => h("span", { class: "sr" }, text);
