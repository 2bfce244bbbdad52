// The curl command that does what the form does. The key stands in it as a variable, never as itself.

/** The command for `input` (see form.js), or for what is still to be chosen when it is null. */
export function curlCommand({ url, input, model, mode, auth }) {
  const words = [mode === "stream" ? "curl -sN" : "curl -s"];
  if (auth) words.push('-H "Authorization: Bearer $DUMBWAITER_API_KEY"');
  if (mode === "later") words.push("-H 'Prefer: respond-async'");
  if (mode === "stream") words.push("-H 'Accept: text/event-stream'");
  words.push(...bodyWords(input, model));
  words.push(quoted(url));
  if (mode === "wait" && ["image", "array", "tensor", "bytes"].includes(model.outputKind)) {
    words.push(`-o answer.${{ image: "png", bytes: "bin" }[model.outputKind] ?? "npy"}`);
  }
  const ask = words.join(" \\\n  ");
  const key = auth ? '-H "Authorization: Bearer $DUMBWAITER_API_KEY" ' : "";
  const root = url.slice(0, url.indexOf("/v1/models/"));
  if (mode === "later") return `${ask}\n# then, with the id of the answer:\ncurl -s ${key}${quoted(`${root}/v1/predictions/ID`)}`;
  return ask;
}

function bodyWords(input, model) {
  if (input === null) {
    if (model.kind === "image") return ["-H 'Content-Type: image/jpeg'", "--data-binary @picture.jpg"];
    if (model.kind === "text") return ["-H 'Content-Type: text/plain'", "--data-raw 'a text'"];
    if (model.kind !== "json" && model.kind !== "arguments") return ["--data-binary @FILE"];
    const given = model.example ?? {};
    if (model.kind === "arguments" && Object.values(given).some(isDataUrl)) return exampleFormWords(given);
    return jsonWords(given);
  }
  if (input.body instanceof File) {
    return [`-H ${quoted(`Content-Type: ${input.type}`)}`, `--data-binary ${quoted(`@${input.body.name}`)}`];
  }
  if (input.body !== undefined) return [`-H 'Content-Type: ${input.type}'`, `--data-raw ${quoted(input.body)}`];
  if (Object.keys(input.files).length) return formWords(input);
  return jsonWords(input.value);
}

function jsonWords(value) {
  return ["-H 'Content-Type: application/json'", `--data-raw ${quoted(JSON.stringify({ input: value }))}`];
}

function formWords(input) {
  return Object.entries(input.value).map(([name, value]) => {
    const file = input.files[name];
    if (file) return `-F ${quoted(`${name}=@${file.name};type=${file.type || "application/octet-stream"}`)}`;
    return fieldWord(name, value);
  });
}

function exampleFormWords(example) {
  return Object.entries(example).map(([name, value]) => {
    if (isDataUrl(value)) return `-F ${quoted(`${name}=@picture.jpg`)}`;
    return fieldWord(name, value);
  });
}

/** A field of a form: text goes as it is, anything else as JSON, which curl wants in quotes of its own. */
function fieldWord(name, value) {
  if (typeof value === "string") return `--form-string ${quoted(`${name}=${value}`)}`;
  const json = JSON.stringify(value).replace(/["\\]/g, "\\$&");
  return `-F ${quoted(`${name}="${json}";type=application/json`)}`;
}

function isDataUrl(value) {
  return typeof value === "string" && value.startsWith("data:");
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
