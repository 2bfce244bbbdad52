// From a model's schema to a form, and from the form to an input.
//
// An input is {type, body, name} for a raw body (body: string or File) or {value, files} for JSON, where `files` names
// the members that came from files.

import { freshId, make, size } from "./elements.js";

const CHOICES = {
  image: ["file"],
  bytes: ["file", "text"],
  text: ["text"],
  json: ["json"],
  array: ["json", "file"],
  tensor: ["json", "file"],
  any: ["file", "text", "json"],
};
const CHOICE_NAMES = { file: "File", text: "Text", json: "JSON" };

/** The form of a model: {element, read, problem}; `read()` resolves to an input, or rejects with what is missing. */
export function inputForm(model, resolve, changed) {
  const schema = resolve(model.schema);
  if (model.kind === "arguments") return argumentsForm(schema, resolve, changed);
  const choices = CHOICES[model.kind] ?? CHOICES.any;
  const fields = choices.map((choice) => singleField(choice, model, changed));
  if (fields.length === 1) return fields[0];
  return chooser(choices, fields, changed);
}

function singleField(choice, model, changed) {
  if (choice === "file") return fileField({ label: model.kind === "image" ? "Picture" : "File", accept: acceptOf(model), changed, preview: true });
  if (choice === "text") return textField({ label: "Text", changed });
  return jsonField({ label: "JSON", example: model.example, changed });
}

function acceptOf(model) {
  const kinds = model.contentTypes.filter((kind) => kind !== "*/*");
  if (model.kind === "image") return kinds.join(",") || "image/*";
  return model.kind === "array" || model.kind === "tensor" ? ".npy" : "";
}

function chooser(choices, fields, changed) {
  const name = freshId("choice");
  const bodies = fields.map((field) => field.element);
  const options = choices.map((choice, index) => {
    const radio = make("input", { type: "radio", name, value: choice, checked: index === 0 });
    radio.addEventListener("change", () => {
      show(index);
      changed();
    });
    return make("label", {}, radio, make("span", { text: CHOICE_NAMES[choice] }));
  });
  let chosen = 0;
  const show = (index) => {
    chosen = index;
    bodies.forEach((body, at) => (body.hidden = at !== index));
  };
  show(0);
  const group = make("fieldset", { class: "segments" }, make("legend", { text: "Input as" }), make("div", { class: "choices" }, ...options));
  return {
    element: make("div", { class: "fields" }, group, ...bodies),
    read: () => fields[chosen].read(),
    paste: (file) => fields[choices.indexOf("file")]?.paste(file) && (options[choices.indexOf("file")].click(), true),
  };
}

function argumentsForm(schema, resolve, changed) {
  const required = new Set(schema.required ?? []);
  const fields = Object.entries(schema.properties ?? {}).map(([name, one]) => {
    const optional = !required.has(name);
    return { name, optional, field: argumentField(name, resolve(one), optional, changed) };
  });
  return {
    element: make("div", { class: "fields" }, ...fields.map(({ field }) => field.element)),
    async read() {
      const value = {};
      const files = {};
      for (const { name, optional, field } of fields) {
        const input = await field.read(optional);
        if (input === undefined) continue;
        value[name] = input.body === undefined ? input.value : await asText(input);
        if (input.body instanceof File) files[name] = input.body;
      }
      return { value, files };
    },
    paste: (file) => fields.some(({ field }) => field.paste?.(file)),
  };
}

function argumentField(name, schema, optional, changed) {
  const label = optional ? `${name} (optional)` : name;
  const type = typeOf(schema);
  if (schema.enum) return choiceField({ label, type, values: schema.enum, optional, changed });
  if (isFile(schema)) return fileField({ label, type, accept: isPicture(schema) ? "image/*" : "", changed, preview: true });
  if (schema.type === "number" || schema.type === "integer") return numberField({ label, type, schema, changed });
  if (schema.type === "boolean") return choiceField({ label, type, values: [true, false], optional, changed });
  if (schema.type === "string") return textField({ label, type, changed, rows: 2, maxLength: schema.maxLength });
  const example = optional ? undefined : exampleOf(schema);
  return jsonField({ label: `${label}, as JSON`, type, example, changed });
}

const isFile = (schema) => Boolean(schema.contentMediaType) || schema.format === "uri";
const isPicture = (schema) => schema.contentMediaType === "image/*";
const TYPES = { number: "number", integer: "whole number", boolean: "true or false", string: "text", object: "object", null: "null" };

/** What a value of `schema` is, in a few words; undefined where that says nothing. */
function typeOf(schema) {
  if (schema.enum) return "one of these";
  if (isFile(schema)) return isPicture(schema) ? "picture" : "file";
  if (schema.type === "array") {
    const each = typeOf(schema.items ?? {});
    return each ? `list, each ${each}` : "list";
  }
  const types = [schema.type ?? []].flat().map((one) => TYPES[one] ?? one);
  return types.length ? types.join(" or ") + rangeOf(schema) : undefined;
}

function rangeOf({ minimum, maximum }) {
  const to = maximum === undefined ? "" : ` to ${maximum}`;
  if (minimum === undefined) return to && ` up${to}`;
  return ` from ${minimum}${to}`;
}

function exampleOf(schema) {
  if (schema.default !== undefined) return schema.default;
  return { object: {}, array: [], null: null }[[schema.type].flat()[0]];
}

function labelled(label, type, control, ...more) {
  const id = freshId("field");
  control.id = id;
  const name = make("label", { for: id }, label, type && make("span", { class: "type", text: ` ${type}` }));
  return make("div", { class: "field" }, name, control, ...more);
}

function textField({ label, type, changed, rows = 6, maxLength }) {
  const area = make("textarea", { rows, maxlength: maxLength, oninput: changed });
  return {
    element: labelled(label, type, area),
    async read(optional) {
      if (area.value === "" && optional) return undefined;
      if (area.value === "" && rows > 2) throw missing(area, "Write a text first.");
      return { type: "text/plain", body: area.value, value: area.value };
    },
  };
}

function numberField({ label, type, schema, changed }) {
  const whole = schema.type === "integer";
  const box = make("input", {
    type: "number",
    step: whole ? 1 : "any",
    min: schema.minimum,
    max: schema.maximum,
    placeholder: schema.default,
    inputmode: whole ? "numeric" : "decimal",
    oninput: changed,
  });
  return {
    element: labelled(label, type, box),
    async read(optional) {
      if (box.value === "" && optional && !box.validity.badInput) return undefined;
      if (box.value === "") throw missing(box, `${label} needs a number.`);
      return { value: Number(box.value) };
    },
  };
}

function choiceField({ label, type, values, optional, changed }) {
  const texts = values.map((value) => JSON.stringify(value));
  const options = [...(optional ? [""] : []), ...texts].map((text) =>
    make("option", { value: text, text: text === "" ? "as the model likes" : text.replace(/^"(.*)"$/, "$1") }),
  );
  const box = make("select", { onchange: changed }, ...options);
  return {
    element: labelled(label, type, box),
    async read() {
      return box.value === "" ? undefined : { value: JSON.parse(box.value) };
    },
  };
}

function jsonField({ label, type, example, changed }) {
  const note = make("p", { class: "note", "aria-live": "polite" });
  const area = make("textarea", { rows: 8, class: "code", spellcheck: "false", autocapitalize: "off" });
  area.value = example === undefined ? "" : JSON.stringify(example, null, 2);
  area.rows = Math.min(14, Math.max(3, area.value.split("\n").length + 1));
  area.addEventListener("input", () => {
    note.textContent = area.value.trim() === "" ? "" : complaint(area.value);
    changed();
  });
  return {
    element: labelled(label, type, area, note),
    async read(optional) {
      if (area.value.trim() === "" && optional) return undefined;
      const wrong = complaint(area.value);
      if (wrong) throw missing(area, wrong);
      return { value: JSON.parse(area.value), files: {} };
    },
  };
}

function complaint(text) {
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return `This is not JSON yet: ${error.message}`;
  }
}

function fileField({ label, type, accept, changed, preview }) {
  let file = null;
  let url = null;
  const input = make("input", { type: "file", accept, class: "hidden-file" });
  const text = make("span", { class: "drop-text" });
  const picture = make("img", { class: "preview", alt: "", hidden: true });
  const drop = make("div", { class: "drop" }, picture, text);
  const take = (chosen) => {
    if (!chosen) return false;
    file = chosen;
    if (url) URL.revokeObjectURL(url);
    url = preview && file.type.startsWith("image/") ? URL.createObjectURL(file) : null;
    picture.hidden = url === null;
    if (url) picture.src = url;
    text.textContent = `${file.name}, ${size(file.size)}. Choose, drop or paste another one.`;
    changed();
    return true;
  };
  text.textContent = "Choose a file, drop it here, or paste it.";
  input.addEventListener("change", () => take(input.files[0]));
  const element = labelled(label, type, input, drop);
  drop.addEventListener("click", () => input.click());
  makeDroppable(drop, take);
  return {
    element,
    paste: take,
    async read(optional) {
      if (!file && optional) return undefined;
      if (!file) throw missing(input, "Choose a file first.");
      return { type: file.type || "application/octet-stream", body: file };
    },
  };
}

function makeDroppable(place, take) {
  for (const kind of ["dragenter", "dragover"]) {
    place.addEventListener(kind, (event) => {
      event.preventDefault();
      place.classList.add("over");
    });
  }
  place.addEventListener("dragleave", () => place.classList.remove("over"));
  place.addEventListener("drop", (event) => {
    event.preventDefault();
    place.classList.remove("over");
    take(event.dataTransfer.files[0]);
  });
}

function missing(control, text) {
  return Object.assign(new Error(text), { control });
}

function asText(input) {
  if (typeof input.body === "string") return input.body;
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(input.body);
  });
}
