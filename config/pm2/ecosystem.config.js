// The processes of one host for PM2, with the settings in .env of the checkout: pm2 start ecosystem.config.js
const fs = require("fs");
const path = require("path");
const { parseEnv } = require("util"); // Node.js 20.12 or newer.

const checkout = path.resolve(__dirname, "../..");
const file = path.join(checkout, ".env");
// Read here, because PM2 would keep what its own shell had when it was started; so a reload takes new settings.
const settings = fs.existsSync(file) ? parseEnv(fs.readFileSync(file, "utf8")) : {};
// PORT is the API's, the scheduler has the next one, and the workers have those after that.
const port = Number(settings.PORT || process.env.PORT || 3000);

function app(role, instances, ownPort, portOfInstance = "$PORT") {
  return {
    name: role,
    cwd: checkout,
    script: "/bin/sh",
    args: ["-c", `PORT=${portOfInstance} exec .venv/bin/birthday --role ${role}`],
    interpreter: "none",
    exec_mode: "fork",
    instances,
    env: { ...settings, PORT: ownPort },
    kill_timeout: 40000, // More than SHUTDOWN_TIMEOUT.
    stop_exit_codes: [2], // A wrong setting does not get right by itself.
    exp_backoff_restart_delay: 500,
    merge_logs: true,
  };
}

module.exports = {
  apps: [
    app("api", 2, port), // They share their port.
    app("scheduler", 1, port + 1),
    app("worker", 1, port + 2, "$((PORT + NODE_APP_INSTANCE))"), // Each has its own, and is scraped for itself.
  ],
};
