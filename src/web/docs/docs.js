// The reference for people: the two contracts, as they are. It says nothing of its own about what
// the daemon does.

const element = (id) => document.getElementById(id);

/// The shapes that have names, of both contracts.
let shapes = {};

/// An element, named as in "p.note", with its children; text stays text.
function make(name, ...children) {
  const [tag, ...classes] = name.split(".");
  const node = document.createElement(tag);
  node.className = classes.join(" ");
  node.append(...children.filter((child) => child || child === 0));
  return node;
}

function link(to, ...children) {
  const node = make("a", ...children);
  node.href = `#${to}`;
  return node;
}

/// Text in which `code` is marked.
function words(text = "") {
  return text.split("`").map((part, place) => (place % 2 ? make("code", part) : part));
}

const nameOf = (schema) => schema?.$ref?.split("/").pop() ?? schema?.allOf?.find((part) => part.$ref)?.$ref.split("/").pop();

const joined = (parts, between) => parts.flatMap((part, place) => (place ? [between, ...part] : part));

/// What kind of value it is, in one line.
function kind(schema) {
  const name = nameOf(schema);
  if (name) return [link(`shape-${name}`, name)];
  if (schema.const !== undefined) return [JSON.stringify(schema.const)];
  if (schema.enum) return [schema.enum.map((value) => JSON.stringify(value)).join(" or ")];
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return joined(choices.map(kind), " or ");
  const types = [schema.type ?? "any value"].flat();
  const bounds = [
    schema.minimum !== undefined && schema.minimum > 0 && `from ${schema.minimum}`,
    schema.maximum !== undefined && `up to ${schema.maximum}`,
    schema.maxItems !== undefined && `at most ${schema.maxItems}`,
  ];
  const bound = bounds.filter(Boolean).join(" ");
  const text = (type) => (type === "array" && schema.items ? ["array of ", ...kind(schema.items)] : [type]);
  return [...joined(types.map(text), " or "), bound && ` ${bound}`].filter(Boolean);
}

/// The fields of an object, those of its parts among them.
function fieldsOf(schema, needed = true) {
  const required = schema.required ?? [];
  const own = Object.entries(schema.properties ?? {}).map(([name, field]) => ({ name, field, needed: needed && required.includes(name) }));
  const parts = (schema.allOf ?? []).flatMap((part) => (part.$ref ? [] : fieldsOf(part, needed)));
  const choices = [...(schema.anyOf ?? []), ...(schema.oneOf ?? [])].flatMap((part) => fieldsOf(part, false));
  return [...own, ...parts, ...choices];
}

function fieldRows(fields) {
  const rows = fields.flatMap(({ name, field, needed }) => {
    const text = words(field.description);
    const type = make("span.quiet", ...kind(field));
    const inner = nameOf(field) || field.type !== "object" ? [] : fieldsOf(field);
    return [
      make(needed ? "dt.needed" : "dt", name),
      make("dd", type, field.description ? ": " : "", ...text, inner.length > 0 && fieldRows(inner)),
    ];
  });
  return make("dl", ...rows);
}

/// A schema: its name if it has one, and its fields.
function shape(schema) {
  const name = nameOf(schema);
  const fields = fieldsOf(name ? shapes[name] : schema);
  const head = name || fields.length === 0 ? make("p", ...kind(schema)) : "";
  return make("div", head, fields.length > 0 && fieldRows(fields));
}

function operation(path, method, told) {
  const id = told.operationId;
  const scope = told.security?.flatMap((one) => one.token ?? []).join();
  const body = told.requestBody?.content["application/json"].schema;
  const answers = Object.entries(told.responses).filter(([, answer]) => answer.content);
  const refusals = Object.keys(told.responses).filter((status) => told.responses[status].$ref);
  const [media, answer] = Object.entries(answers[0][1].content)[0];
  const parameters = (told.parameters ?? []).map(({ name, required, schema, description }) => ({ name, needed: required, field: { ...schema, description } }));
  const article = make(
    "article",
    make("h3", make("span.method", method.toUpperCase()), " ", path),
    make("p", `${told.summary}.`),
    make("p.quiet", scope ? `Needs the scope ${scope}, once there are tokens.` : "Needs no token."),
    parameters.length > 0 && make("h4", "Parameters"),
    parameters.length > 0 && fieldRows(parameters),
    body && make("h4", `Body${told.requestBody.required ? "" : " (may be left out)"}`),
    body && shape(body),
    make("h4", `Answer ${answers.map(([status]) => status).join(" or ")}, ${media}`),
    shape(answer.schema),
    make("p.quiet", `Refused with ${refusals.join(", ")}.`),
  );
  article.id = id;
  return { id, title: `${method.toUpperCase()} ${path}`, article };
}

function message(id, { name, summary, payload }, note) {
  const article = make("article", make("h3", name), make("p", `${summary}.`), note && make("p.quiet", note), shape(payload));
  article.id = id;
  return { id, title: name, article };
}

function named(name, schema) {
  const choices = [...(schema.oneOf ?? []), ...(schema.anyOf ?? [])].filter((one) => one.const !== undefined);
  const values = choices.map((one) => ({ name: one.const, needed: false, field: one }));
  const fields = fieldsOf(schema);
  const article = make(
    "article",
    make("h3", name),
    schema.description && make("p", ...words(schema.description)),
    values.length > 0 ? fieldRows(values) : fields.length > 0 ? fieldRows(fields) : make("p.quiet", ...kind(schema)),
  );
  article.id = `shape-${name}`;
  return { id: article.id, title: name, article };
}

function section(id, title, text, entries) {
  const heading = make("h2", title);
  heading.id = id;
  element("reference").append(heading, ...(text ? [make("p", ...words(text))] : []), ...entries.map(({ article }) => article));
  const list = make("ul", ...entries.map((entry) => make("li", link(entry.id, entry.title))));
  element("contents").append(link(id, title), list);
}

async function read(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}

function render(openapi, asyncapi) {
  shapes = { ...asyncapi.components.schemas, ...openapi.components.schemas };
  element("version").textContent = openapi.info.version;
  const routes = Object.entries(openapi.paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, told]) => operation(path, method, told)));
  section("routes", "Routes", openapi.info.description, routes);
  const messages = Object.entries(asyncapi.components.messages);
  const of = (prefix) => messages.filter(([key]) => key.startsWith(prefix));
  const asked = of("asked_").map(([key, event]) => {
    const { reply, description } = asyncapi.operations[event.name];
    const [answer] = reply.messages.map(({ $ref }) => $ref.split("/").pop().replace("told_", ""));
    return message(key, event, [description, `Answered by ${answer}, or error.`].filter(Boolean).join(" "));
  });
  section("asked", "Events of clients", asyncapi.channels.socket.description, asked);
  section("told", "Events of the daemon", asyncapi.channels.stream.description, of("told_").map(([key, event]) => message(key, event)));
  const sorted = Object.entries(shapes).sort(([a], [b]) => a.localeCompare(b));
  section("shapes", "Shapes", "Of what the daemon says, fields with a star are always there; of what it is asked, they have to be.", sorted.map(([name, schema]) => named(name, schema)));
}

try {
  const [openapi, asyncapi] = await Promise.all([read("openapi.json"), read("asyncapi.json")]);
  render(openapi, asyncapi);
  element("state").remove();
  // Where the address points to was not there when it was opened.
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
} catch (error) {
  element("state").textContent = `The contracts cannot be read: ${error.message}. Reload the page when the daemon is back.`;
} finally {
  element("reference").removeAttribute("aria-busy");
}
