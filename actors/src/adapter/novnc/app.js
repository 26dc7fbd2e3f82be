// The page of `jmp-bus vnc`: one screen, and a word on how it is.
import RFB from "./novnc/core/rfb.js";

const byId = (id) => document.getElementById(id);

function say(state, text) {
  document.body.dataset.state = state;
  byId("state").textContent = text;
  byId("again").hidden = state !== "ended";
}

function connect() {
  say("connecting", "connecting");
  const socket = new WebSocket(new URL("socket", location.href).href.replace(/^http/, "ws"));
  let reason = "";
  socket.addEventListener("close", (event) => { reason = event.reason; });
  const rfb = new RFB(byId("screen"), socket, { shared: true });
  rfb.scaleViewport = true;
  rfb.focusOnClick = true;
  rfb.addEventListener("connect", () => { say("connected", "connected"); rfb.focus(); });
  rfb.addEventListener("desktopname", (event) => say("connected", event.detail.name));
  rfb.addEventListener("securityfailure", (event) => { reason = event.detail.reason; });
  rfb.addEventListener("credentialsrequired", () => {
    rfb.sendCredentials({ password: prompt("The screen's password") ?? "" });
  });
  rfb.addEventListener("disconnect", (event) => {
    const ended = event.detail.clean ? "the screen has ended" : "the connection is lost";
    say("ended", reason || ended);
  });
  byId("cad").onclick = () => { rfb.sendCtrlAltDel(); rfb.focus(); };
}

byId("again").onclick = connect;
connect();
