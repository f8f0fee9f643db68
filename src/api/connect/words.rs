//! What the connect page says, in the languages that it speaks.

/// The texts of one language.
pub(super) struct Words {
    pub title: &'static str,
    pub waiting: &'static str,
    pub incomplete: &'static str,
    pub over: &'static str,
    pub nothing: &'static str,
    pub choose: &'static str,
    pub account_at: &'static str,
    pub as_user: &'static str,
    pub connect: &'static str,
    pub back: &'static str,
    pub done: &'static str,
    pub close: &'static str,
    pub closed: &'static str,
    pub blocked: &'static str,
    pub failed: &'static str,
    pub api_key: &'static str,
    pub username: &'static str,
    pub password: &'static str,
    pub client_id: &'static str,
    pub client_secret: &'static str,
}

/// The texts of a language, and its code; English where there are none.
pub(super) fn words(lang: Option<&str>) -> (&'static str, &'static Words) {
    let wanted = lang.and_then(|lang| lang.split(['-', '_', ',', ';']).next()).unwrap_or_default().to_lowercase();
    let found = ALL.iter().find(|(code, _)| *code == wanted);
    found.map_or(("en", &EN), |(code, words)| (code, words))
}

const ALL: [(&str, &Words); 5] = [("en", &EN), ("de", &DE), ("fr", &FR), ("es", &ES), ("ja", &JA)];

static EN: Words = Words {
    title: "Connect your account",
    waiting: "One moment…",
    incomplete: "This link is not complete. Open it again from the app that gave it to you.",
    over: "This link is over. Ask the app for a new one.",
    nothing: "There is nothing to connect with this link.",
    choose: "What would you like to connect?",
    account_at: "Your account at",
    as_user: "connected for",
    connect: "Connect",
    back: "Back",
    done: "Your account is connected.",
    close: "Close",
    closed: "The sign-in window was closed before you were done. Try again.",
    blocked: "Your browser blocked the sign-in window. Allow pop-ups for this page and try again.",
    failed: "Your account could not be connected. Try again.",
    api_key: "API key",
    username: "User name",
    password: "Password",
    client_id: "Client ID",
    client_secret: "Client secret",
};

static DE: Words = Words {
    title: "Konto verbinden",
    waiting: "Einen Moment…",
    incomplete: "Dieser Link ist unvollständig. Öffnen Sie ihn noch einmal aus der App, von der Sie ihn haben.",
    over: "Dieser Link ist abgelaufen. Lassen Sie sich von der App einen neuen geben.",
    nothing: "Mit diesem Link gibt es nichts zu verbinden.",
    choose: "Was möchten Sie verbinden?",
    account_at: "Ihr Konto bei",
    as_user: "verbunden für",
    connect: "Verbinden",
    back: "Zurück",
    done: "Ihr Konto ist verbunden.",
    close: "Schließen",
    closed: "Das Anmeldefenster wurde zu früh geschlossen. Versuchen Sie es noch einmal.",
    blocked: "Ihr Browser hat das Anmeldefenster blockiert. Erlauben Sie Pop-ups für diese Seite und versuchen Sie es noch einmal.",
    failed: "Ihr Konto konnte nicht verbunden werden. Versuchen Sie es noch einmal.",
    api_key: "API-Schlüssel",
    username: "Benutzername",
    password: "Passwort",
    client_id: "Client-ID",
    client_secret: "Client-Secret",
};

static FR: Words = Words {
    title: "Connecter votre compte",
    waiting: "Un instant…",
    incomplete: "Ce lien est incomplet. Ouvrez-le à nouveau depuis l’application qui vous l’a donné.",
    over: "Ce lien a expiré. Demandez-en un nouveau à l’application.",
    nothing: "Ce lien ne permet de connecter aucun compte.",
    choose: "Que souhaitez-vous connecter ?",
    account_at: "Votre compte chez",
    as_user: "connecté pour",
    connect: "Connecter",
    back: "Retour",
    done: "Votre compte est connecté.",
    close: "Fermer",
    closed: "La fenêtre de connexion a été fermée trop tôt. Réessayez.",
    blocked: "Votre navigateur a bloqué la fenêtre de connexion. Autorisez les pop-ups pour cette page et réessayez.",
    failed: "Votre compte n’a pas pu être connecté. Réessayez.",
    api_key: "Clé d’API",
    username: "Nom d’utilisateur",
    password: "Mot de passe",
    client_id: "Identifiant client",
    client_secret: "Secret client",
};

static ES: Words = Words {
    title: "Conectar su cuenta",
    waiting: "Un momento…",
    incomplete: "Este enlace está incompleto. Ábralo de nuevo desde la aplicación que se lo dio.",
    over: "Este enlace ha caducado. Pida uno nuevo a la aplicación.",
    nothing: "Con este enlace no hay nada que conectar.",
    choose: "¿Qué desea conectar?",
    account_at: "Su cuenta en",
    as_user: "conectada para",
    connect: "Conectar",
    back: "Atrás",
    done: "Su cuenta está conectada.",
    close: "Cerrar",
    closed: "La ventana de inicio de sesión se cerró demasiado pronto. Inténtelo de nuevo.",
    blocked: "Su navegador bloqueó la ventana de inicio de sesión. Permita las ventanas emergentes para esta página e inténtelo de nuevo.",
    failed: "No se pudo conectar su cuenta. Inténtelo de nuevo.",
    api_key: "Clave de API",
    username: "Nombre de usuario",
    password: "Contraseña",
    client_id: "ID de cliente",
    client_secret: "Secreto de cliente",
};

static JA: Words = Words {
    title: "アカウントを接続",
    waiting: "お待ちください…",
    incomplete: "このリンクは不完全です。リンクを発行したアプリからもう一度開いてください。",
    over: "このリンクは期限切れです。アプリで新しいリンクを取得してください。",
    nothing: "このリンクで接続できるものはありません。",
    choose: "何を接続しますか？",
    account_at: "アカウントの接続先：",
    as_user: "利用者：",
    connect: "接続する",
    back: "戻る",
    done: "アカウントが接続されました。",
    close: "閉じる",
    closed: "サインイン画面が途中で閉じられました。もう一度お試しください。",
    blocked: "ブラウザーがサインイン画面をブロックしました。このページのポップアップを許可して、もう一度お試しください。",
    failed: "アカウントを接続できませんでした。もう一度お試しください。",
    api_key: "APIキー",
    username: "ユーザー名",
    password: "パスワード",
    client_id: "クライアントID",
    client_secret: "クライアントシークレット",
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_language_is_found_by_its_first_part() {
        for (asked, code) in
            [(Some("de-CH"), "de"), (Some("JA"), "ja"), (Some("tlh"), "en"), (Some(""), "en"), (None, "en")]
        {
            assert_eq!(words(asked).0, code, "{asked:?}");
        }
    }
}
