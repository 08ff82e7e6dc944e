// Shows the description that lies beside this page, in the colours of the system.

const site = new URL("..", document.currentScript.src).href;
const server = site.replace(/\/$/, "");
const dark = matchMedia("(prefers-color-scheme: dark)").matches;
const reader = document.createElement("rapi-doc");
const attributes = {
  "spec-url": `${site}openapi.json`,
  // it does not read a relative address of a server as the standard has it
  "server-url": server,
  "default-api-server": server,
  theme: dark ? "dark" : "light",
  "bg-color": dark ? "#121316" : "#f6f6f3",
  "text-color": dark ? "#e9eaec" : "#1c1e22",
  "primary-color": dark ? "#43cfa6" : "#0b7459",
  "nav-bg-color": dark ? "#1a1c20" : "#ffffff",
  "nav-text-color": dark ? "#e9eaec" : "#1c1e22",
  "render-style": "focused",
  "font-size": "large",
  "show-header": "false",
  "use-path-in-nav-bar": "true",
  "show-method-in-nav-bar": "as-colored-text",
  "allow-server-selection": "false",
  "load-fonts": "false",
};
for (const [name, value] of Object.entries(attributes)) {
  reader.setAttribute(name, value);
}
document.body.append(reader);
