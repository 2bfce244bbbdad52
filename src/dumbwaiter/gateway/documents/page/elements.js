// Making elements. Text is only ever set as text, so nothing that a model or a caller wrote can become markup.

/** An element with properties (`class`, `text`, `on…` handlers, attributes) and children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") element.textContent = value;
    else if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

let last = 0;

/** An id that no other element of the page has. */
export function freshId(stem) {
  last += 1;
  return `${stem}-${last}`;
}

/** A button that copies what `read()` gives. */
export function copyButton(read, label = "Copy") {
  const button = make("button", { type: "button", class: "small", text: label });
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(read());
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy by hand";
    }
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}

/** Seconds for people: `0.8 ms`, `45 ms`, `1.2 s`. */
export function duration(seconds) {
  const ms = seconds * 1000;
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`;
}

/** Bytes for people. */
export function size(nbytes) {
  if (nbytes < 1000) return `${nbytes} bytes`;
  return nbytes < 1e6 ? `${(nbytes / 1e3).toFixed(0)} kB` : `${(nbytes / 1e6).toFixed(1)} MB`;
}
