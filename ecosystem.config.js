// Where `pm2 reload ecosystem.config.js` looks for it.
module.exports = require("./config/pm2/ecosystem.config.js");
